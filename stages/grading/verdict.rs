//! The result of an evaluation for one completion: the extracted answer, and whether it is right.

use crate::sudoku::Cells;

/// What an evaluation read out of a completion.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Extracted {
    /// GSM8K by d1 reads numbers; one that is not finite is written as `null`.
    Number(f64),
    /// All others read text.
    Text(String),
}

/// An evaluation's verdict on a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was read out of the completion, if anything.
    pub extracted: Option<Extracted>,
    /// Whether it is right; for Sudoku, whether every blank is.
    pub correct: bool,
    /// For Sudoku alone.
    pub cells: Option<Cells>,
}

impl Verdict {
    /// What the completion adds to an accuracy: 1 or 0, and for Sudoku the share of its blanks.
    #[must_use]
    pub fn score(&self) -> f64 {
        match self.cells {
            Some(cells) => cells.share(),
            None => f64::from(u8::from(self.correct)),
        }
    }
}
