//! Published data sets: rows of JSON lines, Parquet or CSV, and the problems that they hold.
//!
//! Bytes come in, so nothing here opens a file. Every layout that the public sets use is read; a row that
//! fits none is an error that names row and field, and is never skipped. Not done: the shuffle of HF
//! datasets (NumPy's PCG64), by which d1 orders its training rows and sets the last 500 aside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::subset::d1_evaluation_order;
use crate::{Benchmark, Problem, Protocol};

mod columns;
mod csv;
mod json;
mod layouts;
mod pages;
mod read;

pub use json::{Columns, json_columns, json_object};
pub(crate) use layouts::is_number;
pub use layouts::problem;
pub use read::{LONGEST_ROW, rows};

/// AGRPO trains on so many rows of Countdown and Sudoku.
const AGRPO_ROWS: usize = 20_000;

/// AGRPO trains on levels of MATH up to this one.
const AGRPO_LEVEL: char = '4';

/// How a data set is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; blank lines are passed over.
    JsonLines,
    /// As Hugging Face serves most sets.
    Parquet,
    /// With a line of names first; every field is text.
    Csv,
}

impl Format {
    /// By the end of a file's name: `.jsonl` or `.json`, `.parquet`, `.csv`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, end) = name.rsplit_once('.')?;
        match end.to_ascii_lowercase().as_str() {
            "jsonl" | "json" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// One row, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Counted from 1: the line in JSON lines, else the row below the names.
    pub number: usize,
    /// What stands in it.
    pub fields: Map<String, Value>,
    /// Columns with a number that would not be written as it stands there, and how it does.
    pub noted: BTreeMap<String, String>,
}

impl Row {
    /// A row whose values stand as they are written.
    #[must_use]
    pub fn new(number: usize, fields: Map<String, Value>) -> Self {
        Self { number, fields, noted: BTreeMap::new() }
    }
}

/// Why a data set cannot be used. `Display` is one line: row, field, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The bytes are not what the format says.
    #[error("{format} cannot be read: {reason}")]
    Format {
        /// The format's name.
        format: &'static str,
        /// What its reader says.
        reason: String,
    },
    /// A row cannot be read at all.
    #[error("row {row} cannot be read: {reason}")]
    Row {
        /// Which one.
        row: usize,
        /// What its reader says.
        reason: String,
    },
    /// A field is not there.
    #[error("row {row} has no {field}: expected {expected}")]
    Missing {
        /// Which row.
        row: usize,
        /// Which field.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A field has a value of another kind.
    #[error("row {row}, {field} = {found}: expected {expected}")]
    Field {
        /// Which row.
        row: usize,
        /// Which field.
        field: &'static str,
        /// The value, cut to a readable length.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// A problem with the row that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// As in [`Row::number`].
    pub row: usize,
    /// What the row asks.
    pub problem: Problem,
}

/// The problems that a protocol trains on, in the order of the rows.
///
/// `test` are the rows of the test set, or none; only AGRPO drops what occurs in it. AGRPO: of MATH, levels
/// 1 to 4 that are not in the test and have a box; of Countdown, the three-number rows among the first
/// 20,000 whose tuple is not in the test; of Sudoku, the first 20,000. d1: of Countdown, the three-number
/// rows; all of the others. Rows of MATH whose answer is null, with no solution beside it, are dropped.
///
/// # Errors
/// Where a row that is kept cannot be read as a problem.
pub fn training_problems(
    rows: &[Row],
    benchmark: Benchmark,
    protocol: Protocol,
    test: &[Row],
) -> Result<Vec<Placed>, DataError> {
    let filtered = protocol == Protocol::Agrpo;
    let limited = filtered && matches!(benchmark, Benchmark::Countdown | Benchmark::Sudoku);
    let mut tested: BTreeSet<Key> = BTreeSet::new();
    if filtered && matches!(benchmark, Benchmark::Math | Benchmark::Countdown) {
        let keys = test.iter().map(|row| layouts::key(row, benchmark));
        tested = keys.collect::<Result<_, _>>()?;
    }
    let mut problems = Vec::new();
    for row in rows.iter().take(if limited { AGRPO_ROWS } else { usize::MAX }) {
        if benchmark == Benchmark::Math && (is_unanswered(row) || (filtered && !suits(row))) {
            continue;
        }
        if !tested.is_empty() && tested.contains(&layouts::key(row, benchmark)?) {
            continue;
        }
        let problem = problem(row, benchmark, protocol)?;
        if !matches!(&problem, Problem::Countdown { numbers, .. } if numbers.len() != 3) {
            problems.push(Placed { row: row.number, problem });
        }
    }
    Ok(problems)
}

/// The problems that a protocol is measured on, in its order: d1 takes 256 of Countdown and Sudoku
/// (see [`d1_evaluation_order`]); all else is taken as it stands.
///
/// # Errors
/// Where a row cannot be read as a problem.
pub fn evaluation_problems(
    rows: &[Row],
    benchmark: Benchmark,
    protocol: Protocol,
) -> Result<Vec<Placed>, DataError> {
    let order = match (protocol, benchmark) {
        (Protocol::D1, Benchmark::Countdown | Benchmark::Sudoku) => d1_evaluation_order(rows.len()),
        _ => (0..rows.len()).collect(),
    };
    let placed =
        |row: &Row| Ok(Placed { row: row.number, problem: problem(row, benchmark, protocol)? });
    order.into_iter().map(|index| placed(&rows[index])).collect()
}

/// What makes two problems the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Numbers(Vec<u32>),
}

/// Whether a row of MATH says itself that it has no answer.
fn is_unanswered(row: &Row) -> bool {
    row.fields.get("answer").is_some_and(Value::is_null) && !row.fields.contains_key("solution")
}

/// Whether AGRPO trains on a row of MATH: a level from 1 to 4 where levels are given, and a box in the
/// solution where there is no answer beside it.
fn suits(row: &Row) -> bool {
    let text = |name: &str| row.fields.get(name).and_then(Value::as_str);
    let easy = text("level").is_none_or(|level| {
        level.chars().next_back().is_some_and(|last| ('0'..=AGRPO_LEVEL).contains(&last))
    });
    let boxed = |solution: &str| crate::agrpo::first_boxed(solution).is_some();
    easy && (text("answer").is_some() || text("solution").is_none_or(boxed))
}

#[cfg(test)]
mod tests;
