//! Rows to problems: the layouts of the public sets, by the names of their fields.
//!
//! Names are compared without case. Nothing is guessed: a value of another kind is an error.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use agrpo_mathematics::patterns::pattern;
use agrpo_mathematics::python::{strip, zfill};
use agrpo_spec::{Benchmark, Protocol, excerpt};

use super::row::{DataError, Row};
use crate::boxes::{first_boxed, last_answer};
use crate::problem::{CELLS, Problem, keeps_clues};

const ANSWER: &str = "the solution with #### before its number, or the number alone";
const SOLUTION: &str = "LaTeX: the answer, or a solution with the answer in \\boxed{...}";
const NUMBERS: &str = "a list of whole numbers, or a text such as \"3,7,12\"";
const TARGET: &str = "a whole number that is not negative";
const PUZZLE: &str = "16 digits from 0 to 4 with a 0 among them";
const GRID: &str = "16 digits from 1 to 4 that keep the puzzle's";

/// The problem of a row. Protocols differ where MATH has a solution: d1 takes its last box, AGRPO its first.
/// The error names the row and the field that is missing or has another kind.
pub fn problem(row: &Row, benchmark: Benchmark, protocol: Protocol) -> Result<Problem, DataError> {
    match benchmark {
        Benchmark::Gsm8k => {
            let question = text(row, &["question"], "a text")?;
            let answer = gold(row)?;
            Ok(Problem::Gsm8k { question, answer: Some(answer) })
        }
        Benchmark::Math => {
            let question = text(row, &["problem", "question"], "a text")?;
            Ok(Problem::Math { question, answer: mathematics(row, protocol)? })
        }
        Benchmark::Countdown => {
            let target = find(row, &["target", "output"], TARGET)?;
            Ok(Problem::Countdown {
                numbers: numbers(row)?,
                target: whole(target.1).ok_or_else(|| wrong(row, target, TARGET))?,
            })
        }
        Benchmark::Sudoku => sudoku(row),
    }
}

/// The identity of a row's problem in its set: the text of MATH, the numbers of Countdown in their order.
pub(super) fn key(row: &Row, benchmark: Benchmark) -> Result<String, DataError> {
    match benchmark {
        Benchmark::Countdown => numbers(row).map(|numbers| format!("{numbers:?}")),
        _ => text(row, &["problem", "question"], "a text"),
    }
}

type Found<'a> = (&'static str, &'a Value);

/// The first of the fields that the row has.
fn find<'a>(
    row: &'a Row,
    names: &[&'static str],
    expected: &'static str,
) -> Result<Found<'a>, DataError> {
    let look = |name: &'static str| {
        let mut fields = row.fields.iter();
        let (_, value) = fields
            .find(|(field, value)| field.trim().eq_ignore_ascii_case(name) && !value.is_null())?;
        Some((name, value))
    };
    let missing = || DataError::Missing { row: row.number, field: names[0], expected };
    names.iter().copied().find_map(look).ok_or_else(missing)
}

fn wrong(row: &Row, (field, value): Found<'_>, expected: &'static str) -> DataError {
    let found = excerpt(&value.to_string());
    DataError::Field { row: row.number, field, found, expected }
}

fn text(row: &Row, names: &[&'static str], expected: &'static str) -> Result<String, DataError> {
    let found = find(row, names, expected)?;
    match found.1 {
        Value::String(text) => Ok(text.clone()),
        _ => Err(wrong(row, found, expected)),
    }
}

/// The text behind `####`, stripped; or the whole text, if it is one line.
fn gold(row: &Row) -> Result<String, DataError> {
    let found = find(row, &["answer"], ANSWER)?;
    let answer = match found.1 {
        Value::String(text) => strip(text.split("####").nth(1).unwrap_or(text)).to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return Err(wrong(row, found, ANSWER)),
    };
    if is_number(&answer) { Ok(answer) } else { Err(wrong(row, found, ANSWER)) }
}

/// Whether a gold answer of GSM8K is a number, with a sign, a dollar, commas, decimals or a percent sign.
pub(crate) fn is_number(answer: &str) -> bool {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^[-+\u{2212}]?\$?[-+]?(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)(?:/[0-9]+)?%?$")
    });
    NUMBER.is_match(answer)
}

fn mathematics(row: &Row, protocol: Protocol) -> Result<String, DataError> {
    let found = find(row, &["answer", "solution"], SOLUTION)?;
    let Value::String(text) = found.1 else { return Err(wrong(row, found, SOLUTION)) };
    let answer = match (found.0, protocol) {
        ("answer", _) => Some(text.as_str()),
        (_, Protocol::D1) if text.contains("\\boxed") || text.contains("\\fbox") => {
            last_answer(text)
        }
        (_, Protocol::D1) => None,
        (_, Protocol::Agrpo) => first_boxed(text),
    };
    let answer = answer.filter(|answer| !answer.is_empty());
    answer.map(str::to_owned).ok_or_else(|| wrong(row, found, SOLUTION))
}

fn whole(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => strip(text).parse().ok(),
        _ => None,
    }
}

fn numbers(row: &Row) -> Result<Vec<u32>, DataError> {
    let found = find(row, &["nums", "numbers", "input"], NUMBERS)?;
    let read: Option<Vec<u32>> = match found.1 {
        Value::Array(values) => values.iter().map(whole).collect(),
        Value::String(text) => text.split(',').map(|number| strip(number).parse().ok()).collect(),
        _ => None,
    };
    read.filter(|numbers| !numbers.is_empty()).ok_or_else(|| wrong(row, found, NUMBERS))
}

fn sudoku(row: &Row) -> Result<Problem, DataError> {
    let grid = |name: &'static str, digits: std::ops::RangeInclusive<char>, expected| {
        let found = find(row, &[name], expected)?;
        let text = match found.1 {
            Value::String(text) => strip(text).to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return Err(wrong(row, found, expected)),
        };
        // A field that was read as a number has lost its first zeros.
        let text = zfill(&text, CELLS);
        let fits = text.len() == CELLS && text.chars().all(|digit| digits.contains(&digit));
        if fits { Ok((text, found)) } else { Err(wrong(row, found, expected)) }
    };
    let (puzzle, found) = grid("puzzle", '0'..='4', PUZZLE)?;
    if !puzzle.contains('0') {
        return Err(wrong(row, found, PUZZLE));
    }
    let (solution, found) = grid("solution", '1'..='4', GRID)?;
    if !keeps_clues(&puzzle, &solution) {
        return Err(wrong(row, found, GRID));
    }
    Ok(Problem::Sudoku { puzzle, solution })
}
