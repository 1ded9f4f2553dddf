//! Compares grades with those of the published programs for thousands of real completions, and prompts with the
//! published ones.
//!
//! They are too large and not ours to copy, so they are read from a folder beside the checkout, or from the
//! one that `AGRPO_SHARED` names. Where there is no such folder, these tests print `not run` with the number of rows;
//! where there is one, every file has to be there with all its rows. `crossings` and `reports` have their rows in the
//! repository; AGRPO's verdicts are among the golden tests of the program.

use std::path::PathBuf;

use serde_json::Value;

use self::not_run::not_run;
use crate::{Benchmark, Extracted, Problem, Protocol, problem_of_truth, reward, verdict};

mod crossings;
#[path = "../../tests/support/not_run.rs"]
mod not_run;
mod pairs;
mod reports;

/// A file of the folder; `None`, after a line that counts the rows, where there is no folder.
#[expect(clippy::disallowed_methods, reason = "a variable of tests alone")]
pub(crate) fn shared(what: &str, rows: usize) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = PathBuf::from(std::env::var("AGRPO_SHARED").unwrap_or_else(|_| beside.to_owned()));
    if !folder.exists() {
        not_run(&format!("{rows} rows of {what}: there is no folder {}", folder.display()));
        return None;
    }
    let found = folder.join(what);
    assert!(found.exists(), "{} is not there, and its folder is", found.display());
    Some(found)
}

/// The lines of a file of the folder, which has so many.
fn lines(what: &str, rows: usize) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(shared(what, rows)?).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), rows, "{what}");
    Some(lines)
}

struct Row {
    file: String,
    index: usize,
    problem: Problem,
    completion: String,
    row: Value,
}

fn graded((task, benchmark, count): (&str, Benchmark, usize)) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    for length in [128, 256] {
        let file = format!("{task}_{length}");
        let all = lines(&format!("fixtures/graded/{file}.jsonl"), count)?;
        rows.extend(all.into_iter().enumerate().map(|(index, row)| {
            let question = row["question"].as_str().unwrap();
            let problem = problem_of_truth(benchmark, question, &row["ground_truth"]).unwrap();
            let completion = row["completion"].as_str().unwrap().to_owned();
            Row { file: file.clone(), index, problem, completion, row }
        }));
    }
    Some(rows)
}

/// Tasks with the rows of each of their two files.
const TASKS: [(&str, Benchmark, usize); 4] = [
    ("gsm8k", Benchmark::Gsm8k, 1130),
    ("math500", Benchmark::Math, 500),
    ("countdown", Benchmark::Countdown, 256),
    ("sudoku", Benchmark::Sudoku, 256),
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
    for task in TASKS {
        let Some(rows) = graded(task) else { continue };
        let differing = differing(&rows, |row| {
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
fn same_parts(row: &Row, protocol: Protocol, key: &str) -> Result<(), String> {
    let found = reward(&row.problem, protocol, &row.completion);
    for (name, expected) in row.row[key].as_object().unwrap() {
        let part = found.parts.get(name.as_str()).copied();
        let near = part.is_some_and(|part| (part - expected.as_f64().unwrap()).abs() < 1e-9);
        if !near {
            return Err(format!("{name} is {part:?}, not {expected}: {:?}", found.extracted));
        }
    }
    Ok(())
}

#[test]
fn d1s_rewards_agree_on_every_row() {
    for task in TASKS {
        let Some(rows) = graded(task) else { continue };
        let differing = differing(&rows, |row| same_parts(row, Protocol::D1, "reward"));
        assert_eq!(differing, Vec::<String>::new());
    }
}

#[test]
fn agrpos_rewards_agree_on_every_row() {
    for task in TASKS {
        let Some(rows) = graded(task) else { continue };
        let check = |row: &Row| same_parts(row, Protocol::Agrpo, "agrpo_reward");
        assert_eq!(differing(&rows, check), Vec::<String>::new());
    }
}
