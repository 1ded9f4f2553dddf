//! The question of a problem with its truth, by the kind of its task.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Reach the target with all of the numbers.
    Countdown { numbers: Vec<u32>, target: u32 },
    /// Fill the puzzle: 16 digits, row by row, `0` for a blank.
    Sudoku { puzzle: String, solution: String },
}
