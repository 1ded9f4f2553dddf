//! `agrpo score`: grades completions from elsewhere with a task's own reward.
//!
//! One JSON object a line goes in and comes out with its grade; the mean is talk. Needs no store and
//! computes no tensor.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::{ScoreArgs, TaskArg};
use crate::commands::{name_of, plain};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::tally::percent;

/// Grades every row.
pub(super) fn score(args: &ScoreArgs) -> Result<Exit, Failure> {
    let task = match args.task {
        TaskArg::Countdown => "countdown",
        TaskArg::Sudoku => "sudoku",
    };
    let name = name_of(&args.file);
    let unreadable =
        |error: &std::io::Error| Failure::usage(format!("cannot read {name}: {}", plain(error)));
    let rows: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&args.file).map_err(|error| unreadable(&error))?))
    };
    let (mut graded, mut reward, mut correct) = (0u32, 0.0, 0u32);
    for (index, row) in rows.lines().enumerate() {
        let row = row.map_err(|error| unreadable(&error))?;
        if row.trim().is_empty() {
            continue;
        }
        let row = grade(task, &row)
            .map_err(|failure| failure.at(format!("{name}, line {}", index + 1)))?;
        graded += 1;
        reward += row["reward"].as_f64().unwrap_or_default();
        correct += u32::from(row["correct"] == true);
        output::json_row(&row)?;
    }
    let count = f64::from(graded.max(1));
    output::talk(format!(
        "{graded} rows  reward {:.4}  correct {} ({correct} of {graded})",
        reward / count,
        percent(f64::from(correct) / count)
    ));
    Ok(Exit::Done)
}

/// A row with its grade added.
fn grade(task: &str, row: &str) -> Result<Value, Failure> {
    let expected = r#"expected a JSON object such as {"question": "...", "ground_truth": ..., "completion": "..."}"#;
    let mut row: Map<String, Value> = serde_json::from_str(row)
        .map_err(|error| Failure::usage(format!("{error}; {expected}")))?;
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(Failure::usage(format!("{name} = {other}: expected a string"))),
        None => Ok(None),
    };
    let missing = |name: &str| Failure::usage(format!("no {name}: {expected}"));
    let completion = text("completion")?.ok_or_else(|| missing("completion"))?;
    let question = text("question")?.unwrap_or_default();
    let truth = row.get("ground_truth").ok_or_else(|| missing("ground_truth"))?;
    let grade = agrpo_stages::tasks::score_row(task, question, truth, completion)
        .map_err(|error| Failure::usage(error.to_string()))?;
    row.insert("reward".to_owned(), json!(grade.reward));
    row.insert("parts".to_owned(), json!(grade.parts));
    row.insert("extracted".to_owned(), json!(grade.extracted));
    row.insert("correct".to_owned(), json!(grade.correct));
    Ok(Value::Object(row))
}
