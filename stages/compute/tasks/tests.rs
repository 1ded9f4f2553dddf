//! Tests of tasks: problems that never change, sides that never meet, solutions that are right.

use agrpo_spec::{CountdownTask, Real, SudokuTask};

use super::*;

impl Question {
    /// Equal for problems that are on one side of the split: the order of numbers does not matter.
    fn key(&self) -> String {
        match self {
            Self::Countdown { numbers, target } => {
                countdown::prompt(&countdown::sorted(numbers), *target)
            }
            Self::Sudoku { puzzle, .. } => puzzle.clone(),
        }
    }
}

fn countdown(numbers: u32, max_number: u32, max_target: u32, held_out: f64) -> DrawnTask {
    let held_out = Real::new(held_out).unwrap();
    let task =
        CountdownTask { seed: 0, numbers, max_number, max_target, prompt_tokens: 24, held_out };
    DrawnTask::Countdown(task)
}

/// The run file's defaults.
fn default_countdown() -> DrawnTask {
    let DrawnTask::Countdown(task) = countdown(3, 9, 99, 0.2) else { unreachable!() };
    DrawnTask::Countdown(CountdownTask { prompt_tokens: 12, ..task })
}

fn sudoku(blanks: u32, held_out: f64) -> DrawnTask {
    DrawnTask::Sudoku(SudokuTask { seed: 0, blanks, held_out: Real::new(held_out).unwrap() })
}

fn tasks() -> Vec<DrawnTask> {
    vec![
        default_countdown(),
        countdown(2, 20, 60, 0.5),
        countdown(4, 50, 100, 0.1),
        countdown(6, 99, 999, 0.3),
        sudoku(1, 0.2),
        sudoku(8, 0.2),
        sudoku(12, 0.9),
    ]
}

/// These lists name the problems of every run: a change means other problems under old names.
#[test]
fn known_problems_are_frozen() {
    let list = |task: &DrawnTask| {
        let training = (0..4).map(|i| training_problem(task, i).unwrap().prompt);
        let examples = (0..4).map(|i| training_example(task, i).unwrap());
        let examples = examples.map(|e| format!("{} {}", e.problem.prompt, e.solution));
        let held_out = held_out_problems(task, 4).unwrap().into_iter().map(|p| p.prompt);
        training.chain(examples).chain(held_out).collect::<Vec<_>>()
    };
    assert_eq!(
        list(&default_countdown()),
        [
            "     1,7,1:7",
            "    5,3,8:16",
            "    7,9,7:14",
            "     6,8,7:2",
            "     2,1,8:7 1+8-2",
            "     4,2,1:9 1+2*4",
            "     1,8,4:4 8/1-4",
            "    3,6,3:12 3+3+6",
            "    5,2,8:80",
            "    5,9,3:15",
            "     3,3,3:2",
            "     4,2,4:2",
        ]
    );
    assert_eq!(
        list(&countdown(4, 50, 100, 0.1)),
        [
            "          40,11,31,49:62",
            "           9,24,17,26:28",
            "          27,18,24,36:56",
            "            2,25,5,46:18",
            "           12,43,11,2:68 43+12+11+2",
            "            1,9,13,12:16 (13-1)*12/9",
            "           26,9,30,13:41 30+9+26/13",
            "           12,37,3,25:27 37+12-(25-3)",
            "          30,16,40,34:88",
            "            4,1,23,13:69",
            "          25,50,27,22:74",
            "           34,8,33,41:18",
        ]
    );
    assert_eq!(
        list(&sudoku(8, 0.2)),
        [
            "1230000021400410",
            "1204040103022000",
            "2304140032000030",
            "0210100201040031",
            "2403000040320240 2413132441323241",
            "3120001004301040 3124421324311342",
            "0300023401400013 4321123431422413",
            "0003040202311020 2143341242311324",
            "0320204334000030",
            "1304240032000100",
            "0041013020130300",
            "1030301243000003",
        ]
    );
}

#[test]
fn every_solution_is_right_and_fits() {
    for task in tasks() {
        for index in 0..500 {
            let Example { problem, solution } = training_example(&task, index).unwrap();
            let grade = grade(&problem.question, &solution);
            assert!(grade.correct, "{problem:?} {solution}");
            assert_eq!((grade.reward, grade.extracted.as_deref()), (1.0, Some(solution.as_str())));
            assert!(grade.parts.values().all(|&part| part == 1.0));
            // The bound that run files are checked against.
            let longest = match &task {
                DrawnTask::Countdown(task) => {
                    let digits = task.max_number.ilog10() + 1;
                    task.numbers * digits + (task.numbers - 1) + 2 * (task.numbers - 2)
                }
                DrawnTask::Sudoku(_) => 16,
            };
            assert!(solution.len() <= longest as usize, "{solution}");
            assert_eq!(problem.prompt.len(), prompt_tokens(&task));
        }
    }
}

#[test]
fn training_and_held_out_problems_never_meet() {
    for task in [countdown(4, 20, 99, 0.2), sudoku(8, 0.2)] {
        let held_out = held_out_problems(&task, 2000).unwrap();
        let keys: BTreeSet<_> = held_out.iter().map(|problem| problem.question.key()).collect();
        let prompts: BTreeSet<_> = held_out.iter().map(|problem| &problem.prompt).collect();
        assert_eq!(prompts.len(), 2000, "all different");
        assert_eq!(held_out_problems(&task, 100).unwrap(), held_out[..100], "a fixed order");
        for index in 0..25_000 {
            let problem = training_problem(&task, index).unwrap();
            let example = training_example(&task, index).unwrap().problem;
            assert!(!keys.contains(&problem.question.key()), "{}", problem.prompt);
            assert!(!keys.contains(&example.question.key()), "{}", example.prompt);
        }
    }
}

#[test]
fn held_out_solutions_of_sudoku_are_new_too() {
    let task = sudoku(8, 0.2);
    let solution = |problem: &Problem| match &problem.question {
        Question::Sudoku { solution, .. } => solution.clone(),
        Question::Countdown { .. } => unreachable!(),
    };
    let held_out: BTreeSet<_> =
        held_out_problems(&task, 2000).unwrap().iter().map(solution).collect();
    let training: BTreeSet<_> =
        (0..5000).map(|index| solution(&training_problem(&task, index).unwrap())).collect();
    assert_eq!((held_out.len(), training.len()), (58, 230));
    assert!(held_out.is_disjoint(&training));
}

#[test]
fn another_seed_gives_other_problems() {
    let DrawnTask::Countdown(task) = default_countdown() else { unreachable!() };
    let other = DrawnTask::Countdown(CountdownTask { seed: 1, ..task });
    let prompts =
        |task: &DrawnTask| (0..50).map(|i| training_problem(task, i).unwrap().prompt).collect();
    let (first, second): (Vec<_>, Vec<_>) = (prompts(&default_countdown()), prompts(&other));
    assert_ne!(first, second);
    let examples: Vec<_> =
        (0..50).map(|i| training_example(&other, i).unwrap().problem.prompt).collect();
    assert_ne!(second, examples);
}

#[test]
fn countdown_is_spread_evenly() {
    let task = default_countdown();
    let (mut first_numbers, mut same_order, mut symbols) = ([0; 10], 0, BTreeMap::new());
    let mut held_out = [BTreeSet::new(), BTreeSet::new()];
    for index in 0..20_000 {
        let Example { problem, solution } = training_example(&task, index).unwrap();
        let Question::Countdown { numbers, .. } = &problem.question else { unreachable!() };
        first_numbers[numbers[0] as usize] += 1;
        let used: Vec<u32> = solution.chars().filter_map(|c| c.to_digit(10)).collect();
        same_order += u32::from(used == *numbers);
        for symbol in solution.chars().filter(|c| !c.is_ascii_digit()) {
            *symbols.entry(symbol).or_insert(0) += 1;
        }
        let drawn = attempt_draw(&task, Seed::new(index));
        if let Some(Example { problem, .. }) = drawn {
            let side = usize::from(is_held_out(&task, &problem.question));
            held_out[side].insert(problem.question.key());
        }
    }
    assert!(first_numbers[1..].iter().all(|&count| count > 1200), "{first_numbers:?}");
    // One order in six, and a little for equal numbers.
    assert!((3333..5000).contains(&same_order), "{same_order}");
    assert_eq!(symbols.len(), 6, "{symbols:?}");
    assert!(symbols.values().all(|&count| count > 1000), "{symbols:?}");
    let share = held_out[1].len() as f64 / (held_out[0].len() + held_out[1].len()) as f64;
    assert!((share - 0.2).abs() < 0.03, "{share}");
}

#[test]
fn too_few_problems_are_an_error_with_numbers() {
    let refusal = |task, held_out| check_drawn(&task, held_out).unwrap_err().to_string();
    assert_eq!(
        refusal(default_countdown(), 100_000),
        "task.countdown: 100000 held-out problems were asked for, 2133 were found and 20000 more \
         draws brought no other: lower evaluation.problems, raise task.countdown.held_out, or \
         widen the task"
    );
    // Three problems have target 1 (with 1 and 1, 1 and 2, 2 and 2): all fall on one side.
    let tiny = |share| match countdown(2, 2, 1, share) {
        DrawnTask::Countdown(task) => DrawnTask::Countdown(CountdownTask { seed: 1, ..task }),
        DrawnTask::Sudoku(_) => unreachable!(),
    };
    for (share, side) in [(0.01, "held-out"), (0.9, "training")] {
        assert_eq!(
            refusal(tiny(share), 1),
            format!(
                "task.countdown: 100000 draws brought no {side} problem: widen the task, or \
                 change task.countdown.held_out"
            )
        );
    }
    assert_eq!(check_drawn(&default_countdown(), 256), Ok(()));
}
