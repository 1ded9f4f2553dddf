//! `agrpo score`: grades given completions by the rules of this project's runs, by published rules, or by
//! the `[reward]` of a run file.
//!
//! Reads JSON objects, one a line, and writes them back with their grades; the mean goes to stderr. Needs no
//! store and computes no tensor.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use agrpo_compute::RowGrader;
use agrpo_grading::{
    Benchmark, Cells, LONGEST_ROW, Protocol, Row, json_columns, problem_of_truth, reward, verdict,
};
use agrpo_spec::{one_line, utf_8};
use agrpo_store::regular;
use serde_json::{Value, json};

use self::graded::Graded;
use crate::args::{RubricArg, ScoreArgs, TaskArg};
use crate::commands::files::{name_of, plain};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

mod custom;
mod graded;

/// Grades every row.
pub(super) fn score(args: &ScoreArgs, session: &Session) -> Result<Exit, Failure> {
    let name = name_of(&args.file);
    let unreadable =
        |error: &std::io::Error| Failure::usage(format!("cannot read {name}: {}", plain(error)));
    if args.rubric.is_none() && args.task.is_some_and(|task| own_task(task).is_none()) {
        return Err(Failure::usage(
            "this project has no rule of its own for this task: name one with --rubric d1, --rubric d1-eval or --rubric agrpo",
        ));
    }
    let own =
        args.run.as_deref().map(|file| custom::Task::read(file, &session.settings)).transpose()?;
    let own = own.as_ref().map(custom::Task::grader).transpose()?;
    let mut rows: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(regular::open(&args.file).map_err(|error| unreadable(&error))?))
    };
    let mut sum = Sum::default();
    let mut line = vec![];
    for number in 1.. {
        line.clear();
        // Reads two bytes more than the longest row, to detect a longer one.
        let read = rows.by_ref().take(LONGEST_ROW as u64 + 2).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(&error))? == 0 {
            break;
        }
        let row = line.strip_suffix(b"\n").unwrap_or(&line);
        let mark = if number == 1 { "\u{feff}" } else { "" };
        let row = row.strip_prefix(mark.as_bytes()).unwrap_or(row);
        if row.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = graded(args, own.as_ref(), (number, row), &mut sum)
            .map_err(|failure| failure.at(format!("{name}, line {number}")))?;
        output::json_row(&row)?;
    }
    output::talk(sum.describe());
    Ok(Exit::Done)
}

/// The sums over all rows.
#[derive(Default)]
struct Sum {
    rows: u32,
    reward: f64,
    correct: u32,
    cells: Option<Cells>,
}

impl Sum {
    fn add(&mut self, grade: &Graded) {
        self.rows += 1;
        self.reward += grade.reward;
        self.correct += u32::from(grade.correct);
        if let Some(cells) = grade.cells {
            let sum = self.cells.get_or_insert(Cells { correct: 0, empty: 0 });
            sum.correct += cells.correct;
            sum.empty += cells.empty;
        }
    }

    fn describe(&self) -> String {
        let rows = self.rows;
        let share = |part: u32, of: u32| {
            let share = output::percent(f64::from(part) / f64::from(of.max(1)));
            format!("{share} ({part} of {of})")
        };
        let cells = self.cells.map_or_else(String::new, |cells| {
            format!("  cells {}", share(cells.correct, cells.empty))
        });
        let reward = self.reward / f64::from(rows.max(1));
        format!("{rows} rows  reward {reward:.4}  correct {}{cells}", share(self.correct, rows))
    }
}

/// A row with its grade added.
fn graded(
    args: &ScoreArgs,
    own: Option<&RowGrader<'_>>,
    (number, row): (usize, &[u8]),
    sum: &mut Sum,
) -> Result<Value, Failure> {
    let expected = r#"expected a JSON object such as {"question": "...", "ground_truth": ..., "completion": "..."}"#;
    let (mut row, noted) = utf_8(row).map_err(Failure::usage).and_then(|row| {
        json_columns(row.as_bytes()).map_err(|error| Failure::usage(format!("{error}; {expected}")))
    })?;
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => {
            Err(Failure::usage(format!("{name} = {}: expected a string", one_line(other))))
        }
        None => Ok(None),
    };
    let missing = |name: &str| Failure::usage(format!("no {name}: {expected}"));
    let completion = text("completion")?.ok_or_else(|| missing("completion"))?;
    let grade = match (own, args.task) {
        (Some(own), _) => {
            custom::grade(own, Row { number, fields: row.clone(), noted }, completion)?
        }
        (None, None) => return Err(missing("--task")),
        (None, Some(task)) => {
            let question = text("question")?.unwrap_or_default();
            let truth = row.get("ground_truth").ok_or_else(|| missing("ground_truth"))?;
            match args.rubric {
                None => by_our_rule(task, question, truth, completion)?,
                Some(rubric) => by_rubric(task, rubric, question, truth, completion)?,
            }
        }
    };
    sum.add(&grade);
    row.insert("reward".to_owned(), json!(grade.reward));
    row.insert("parts".to_owned(), grade.parts);
    row.insert("extracted".to_owned(), grade.extracted);
    row.insert("correct".to_owned(), json!(grade.correct));
    if let Some(cells) = grade.cells {
        row.insert("correct_cells".to_owned(), json!(cells.correct));
        row.insert("empty_cells".to_owned(), json!(cells.empty));
    }
    Ok(Value::Object(row))
}

/// The task's name in run files, if this project has rules for it.
fn own_task(task: TaskArg) -> Option<&'static str> {
    match task {
        TaskArg::Countdown => Some("countdown"),
        TaskArg::Sudoku => Some("sudoku"),
        TaskArg::Gsm8k | TaskArg::Math => None,
    }
}

fn by_our_rule(
    task: TaskArg,
    question: &str,
    truth: &Value,
    completion: &str,
) -> Result<Graded, Failure> {
    let task = own_task(task).unwrap_or_default();
    let grade = agrpo_compute::tasks::score_row(task, question, truth, completion)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Graded {
        reward: grade.reward,
        parts: json!(grade.parts),
        extracted: json!(grade.extracted),
        correct: grade.correct,
        cells: None,
    })
}

fn by_rubric(
    task: TaskArg,
    rubric: RubricArg,
    question: &str,
    truth: &Value,
    completion: &str,
) -> Result<Graded, Failure> {
    let benchmark = match task {
        TaskArg::Countdown => Benchmark::Countdown,
        TaskArg::Sudoku => Benchmark::Sudoku,
        TaskArg::Gsm8k => Benchmark::Gsm8k,
        TaskArg::Math => Benchmark::Math,
    };
    let problem = problem_of_truth(benchmark, question, truth)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let protocol = match rubric {
        RubricArg::D1 | RubricArg::D1Eval => Protocol::D1,
        RubricArg::Agrpo => Protocol::Agrpo,
    };
    if rubric == RubricArg::D1Eval {
        let verdict = verdict(&problem, protocol, completion);
        let part = if verdict.cells.is_some() { "cells" } else { "correct" };
        return Ok(Graded {
            reward: verdict.score(),
            parts: json!({ part: verdict.score() }),
            extracted: json!(verdict.extracted),
            correct: verdict.correct,
            cells: verdict.cells,
        });
    }
    let grade = reward(&problem, protocol, completion);
    Ok(Graded {
        reward: grade.reward,
        parts: json!(grade.parts),
        extracted: json!(grade.extracted),
        correct: grade.correct,
        cells: None,
    })
}
