//! The table of a grid: a row for each policy, a column for each length and number of steps, and in a row of its own
//! the best trained policy of each column. Measures nothing. A best policy was chosen by the problems that it is
//! measured on, so its accuracy is too high by what the choice gained; published tables often do so.

use agrpo_spec::GridCell;
use agrpo_view::statistics::Interval;

use super::row::Row;
use crate::commands::prelude::{Serialize, output};

/// The most accurate trained policy of a column; of equals the earliest.
#[derive(Debug, Serialize)]
pub(super) struct Best {
    cell: GridCell,
    iteration: u32,
    score: f64,
    interval: Option<Interval>,
}

/// The best of each column, in their order; none of policies that were not trained.
pub(super) fn best(rows: &[Row]) -> Vec<Best> {
    let of_column = |cell: GridCell| {
        let trained = rows.iter().filter(|row| row.iteration > 0 && row.cell == cell);
        let best = trained.reduce(|best, row| if row.score > best.score { row } else { best })?;
        let Row { iteration, score, interval, .. } = *best;
        Some(Best { cell, iteration, score, interval })
    };
    columns(rows).into_iter().filter_map(of_column).collect()
}

fn columns(rows: &[Row]) -> Vec<GridCell> {
    let first = rows.first().map(|row| row.iteration);
    rows.iter().filter(|row| Some(row.iteration) == first).map(|row| row.cell).collect()
}

/// The rows of the table, policy by policy; only those of the base and the best if the rest `is_hidden`.
pub(super) fn describe(rows: &[Row], best: &[Best], is_hidden: bool) -> String {
    let mut head = vec!["policy".to_owned()];
    head.extend(columns(rows).iter().map(GridCell::to_string));
    let mut lines = vec![head];
    for of_policy in rows.chunk_by(|one, next| one.iteration == next.iteration) {
        if is_hidden && of_policy[0].iteration > 0 {
            continue;
        }
        let cells = of_policy.iter().map(|row| shown(row.score, row.interval));
        lines.push([of_policy[0].policy.clone()].into_iter().chain(cells).collect());
    }
    if !best.is_empty() {
        let cells = best
            .iter()
            .map(|one| format!("{} iteration {}", shown(one.score, one.interval), one.iteration));
        lines.push(["best".to_owned()].into_iter().chain(cells).collect());
    }
    output::columns(&lines)
}

fn shown(score: f64, interval: Option<Interval>) -> String {
    let interval = interval.map(|Interval { low, high }| {
        format!(" ({} to {})", output::percent(low), output::percent(high))
    });
    format!("{}{}", output::percent(score), interval.unwrap_or_default())
}
