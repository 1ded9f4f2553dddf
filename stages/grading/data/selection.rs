//! Selects the problems of a data set that a protocol trains on and evaluates, in its order.

use std::collections::BTreeSet;

use agrpo_spec::{Benchmark, Protocol};
use serde_json::Value;

use super::layouts::{key, problem};
use super::row::{DataError, Row};
use crate::{boxes::first_boxed, problem::Problem, subset::d1_evaluation_order};

/// A problem with the number of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// As in [`Row::number`].
    pub row: usize,
    /// The row's problem.
    pub problem: Problem,
}

/// The problems that a protocol trains on, in the order of the rows.
///
/// `test` are the rows of the test set, or none; only AGRPO drops what occurs in it. AGRPO: of MATH, levels
/// 1 to 4 that are not in the test and have a box; of Countdown, the three-number rows among the first
/// 20,000 whose tuple is not in the test; of Sudoku, the first 20,000. d1: of Countdown, the three-number
/// rows; all of the others. Rows of MATH whose answer is null, with no solution beside it, are dropped.
/// Error where a row that is kept cannot be read as a problem.
pub fn training_problems(
    rows: &[Row],
    benchmark: Benchmark,
    protocol: Protocol,
    test: &[Row],
) -> Result<Vec<Placed>, DataError> {
    let filtered = protocol == Protocol::Agrpo;
    let limited = filtered && matches!(benchmark, Benchmark::Countdown | Benchmark::Sudoku);
    let mut tested: BTreeSet<String> = BTreeSet::new();
    if filtered && matches!(benchmark, Benchmark::Math | Benchmark::Countdown) {
        let keys = test.iter().map(|row| key(row, benchmark));
        tested = keys.collect::<Result<_, _>>()?;
    }
    let mut problems = Vec::new();
    for row in rows.iter().take(if limited { 20_000 } else { usize::MAX }) {
        if benchmark == Benchmark::Math && (is_unanswered(row) || (filtered && !suits(row))) {
            continue;
        }
        if !tested.is_empty() && tested.contains(&key(row, benchmark)?) {
            continue;
        }
        let problem = problem(row, benchmark, protocol)?;
        if !matches!(&problem, Problem::Countdown { numbers, .. } if numbers.len() != 3) {
            problems.push(Placed { row: row.number, problem });
        }
    }
    Ok(problems)
}

/// The problems that a protocol is measured on, in its order: d1 takes 256 of Countdown and Sudoku (see
/// [`d1_evaluation_order`]); other sets are used as a whole, in the order of the rows. Error where a row cannot be read
/// as a problem.
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

/// Whether a row of MATH states that it has no answer.
fn is_unanswered(row: &Row) -> bool {
    row.fields.get("answer").is_some_and(Value::is_null) && !row.fields.contains_key("solution")
}

/// Whether AGRPO trains on a row of MATH: a level from 1 to 4 where levels are given, and a box in the
/// solution where there is no answer beside it.
fn suits(row: &Row) -> bool {
    let text = |name: &str| row.fields.get(name).and_then(Value::as_str);
    let easy = text("level").is_none_or(|level| {
        level.chars().next_back().is_some_and(|last| ('0'..='4').contains(&last))
    });
    let boxed = |solution: &str| first_boxed(solution).is_some();
    easy && (text("answer").is_some() || text("solution").is_none_or(boxed))
}
