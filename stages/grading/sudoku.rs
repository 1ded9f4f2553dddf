//! Sudoku of 4x4 cells: its blanks, and how many of them an answer fills as the solution does.

/// Blanks of a Sudoku.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cells {
    /// Blanks filled as in the solution.
    pub correct: u32,
    /// All blanks of the puzzle.
    pub empty: u32,
}

impl Cells {
    /// The share of the blanks that are right.
    pub(crate) fn share(self) -> f64 {
        f64::from(self.correct) / f64::from(self.empty.max(1))
    }
}

/// Cells of a grid.
pub(crate) const CELLS: usize = 16;

/// Blanks of the puzzle that the answer fills as the solution does, cell by cell.
pub(crate) fn cells(puzzle: &str, solution: &str, answer: &str) -> Cells {
    let answers = answer.chars().map(Some).chain(std::iter::repeat(None));
    let mut cells = Cells { correct: 0, empty: 0 };
    for ((given, right), answered) in puzzle.chars().zip(solution.chars()).zip(answers) {
        if given == '0' {
            cells.empty += 1;
            cells.correct += u32::from(answered == Some(right));
        }
    }
    cells
}

/// Whether a grid has the puzzle's digit wherever the puzzle has one.
pub(crate) fn keeps_clues(puzzle: &str, grid: &str) -> bool {
    puzzle.chars().zip(grid.chars()).all(|(clue, cell)| clue == '0' || clue == cell)
}
