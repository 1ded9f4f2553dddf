//! The grade of one row, the same for every kind of rules.

use agrpo_grading::Cells;
use serde_json::Value;

/// A grade, by whichever rules.
pub(super) struct Graded {
    pub(super) reward: f64,
    pub(super) parts: Value,
    pub(super) extracted: Value,
    pub(super) correct: bool,
    pub(super) cells: Option<Cells>,
}
