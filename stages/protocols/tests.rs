//! Against thousands of real completions that the published programs graded, and the published prompts.
//!
//! They are too large and not ours to copy, so they are read from a folder beside the checkout, or from the
//! one that `AGRPO_SHARED` names. Where there is none, these tests say so and pass: the rules have tests of
//! their own.

use std::path::PathBuf;

use serde_json::Value;

use crate::{Benchmark, Extracted, Problem, Protocol, problem_of_truth, reward, verdict};

/// The folder, or a line that says what was left out.
#[expect(clippy::disallowed_methods, reason = "where the files lie is said to tests alone")]
#[expect(clippy::print_stderr, reason = "a test that was left out has to say so")]
pub(crate) fn shared(what: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = PathBuf::from(std::env::var("AGRPO_SHARED").unwrap_or_else(|_| beside.to_owned()));
    let found = folder.join(what);
    if found.exists() {
        return Some(found);
    }
    eprintln!("left out: {} is not there", found.display());
    None
}

struct Row {
    file: String,
    index: usize,
    problem: Problem,
    completion: String,
    row: Value,
}

fn graded(task: &str, benchmark: Benchmark) -> Vec<Row> {
    let mut rows = Vec::new();
    for length in [128, 256] {
        let file = format!("{task}_{length}");
        let Some(path) = shared(&format!("fixtures/graded/{file}.jsonl")) else { continue };
        for (index, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
            let row: Value = serde_json::from_str(line).unwrap();
            let question = row["question"].as_str().unwrap();
            let problem = problem_of_truth(benchmark, question, &row["ground_truth"]).unwrap();
            let completion = row["completion"].as_str().unwrap().to_owned();
            rows.push(Row { file: file.clone(), index, problem, completion, row });
        }
    }
    rows
}

const TASKS: [(&str, Benchmark); 4] = [
    ("gsm8k", Benchmark::Gsm8k),
    ("math500", Benchmark::Math),
    ("countdown", Benchmark::Countdown),
    ("sudoku", Benchmark::Sudoku),
];

/// Rows where a check fails, as lines.
fn differing(rows: &[Row], check: impl Fn(&Row) -> Result<(), String>) -> Vec<String> {
    let lines = rows.iter().filter_map(|row| {
        let reason = check(row).err()?;
        Some(format!("{} row {}: {reason}", row.file, row.index))
    });
    lines.collect()
}

#[test]
fn d1s_evaluation_agrees_on_every_row() {
    for (task, benchmark) in TASKS {
        let differing = differing(&graded(task, benchmark), |row| {
            let found = verdict(&row.problem, Protocol::D1, &row.completion);
            let expected = &row.row["eval"];
            let extracted = match &found.extracted {
                None => expected["extracted"].is_null(),
                Some(Extracted::Number(value)) => expected["extracted"].as_f64() == Some(*value),
                Some(Extracted::Text(text)) => expected["extracted"] == *text,
            };
            let correct = match found.cells {
                Some(cells) => {
                    expected["correct_cells"] == cells.correct
                        && expected["empty_cells"] == cells.empty
                }
                None => expected["correct"] == found.correct,
            };
            if extracted && correct { Ok(()) } else { Err(format!("{found:?}, not {expected}")) }
        });
        assert_eq!(differing, Vec::<String>::new());
    }
}

/// Whether every part that a row names has its value.
fn same_parts(row: &Row, protocol: Protocol, key: &str, but: &str) -> Result<(), String> {
    let found = reward(&row.problem, protocol, &row.completion);
    for (name, expected) in row.row[key].as_object().unwrap() {
        let part = found.parts.get(name.as_str()).copied();
        let near = part.is_some_and(|part| (part - expected.as_f64().unwrap()).abs() < 1e-9);
        if !near && name != but {
            return Err(format!("{name} is {part:?}, not {expected}: {:?}", found.extracted));
        }
    }
    Ok(())
}

#[test]
fn d1s_rewards_agree_on_every_row() {
    for (task, benchmark) in TASKS {
        let rows = graded(task, benchmark);
        let differing = differing(&rows, |row| same_parts(row, Protocol::D1, "reward", ""));
        assert_eq!(differing, Vec::<String>::new());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "rows on which math_verify differs are to be seen")]
fn agrpos_rewards_agree_but_for_corners_of_mathematics() {
    for (task, benchmark) in TASKS {
        let rows = graded(task, benchmark);
        let check =
            |but| differing(&rows, |row| same_parts(row, Protocol::Agrpo, "agrpo_reward", but));
        let mathematics = matches!(benchmark, Benchmark::Gsm8k | Benchmark::Math);
        if mathematics {
            assert_eq!(check("correctness"), Vec::<String>::new());
        }
        let differing = check("");
        for line in &differing {
            eprintln!("{line}");
        }
        eprintln!("{task}: {} of {} rows differ", differing.len(), rows.len());
        // 98.5 % of the rows, where math_verify decides.
        let bound = if mathematics { rows.len() * 15 / 1000 } else { 0 };
        assert!(differing.len() <= bound, "{differing:#?}");
    }
}
