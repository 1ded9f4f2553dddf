//! A question of a benchmark with its truth, and how many blanks of a Sudoku an answer fills. Prompts and graders are
//! elsewhere.

use agrpo_spec::Benchmark;

/// A question with its truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// `answer`: what follows `####`, commas included; `None` where no number can be right.
    Gsm8k {
        /// The question as the model sees it.
        question: String,
        /// The gold answer.
        answer: Option<String>,
    },
    /// `answer`: LaTeX, without its box.
    Math {
        /// The question as the model sees it.
        question: String,
        /// The gold answer.
        answer: String,
    },
    /// Every number has to be used once.
    Countdown {
        /// The numbers, in the order in which they are shown.
        numbers: Vec<u32>,
        /// The value that the expression must have.
        target: u32,
    },
    /// 16 digits each, row by row; `0` is a blank. Only this solution counts.
    Sudoku {
        /// With at least one blank.
        puzzle: String,
        /// Without blanks.
        solution: String,
    },
}

impl Problem {
    /// The gold answer of GSM8K or MATH, where one can be right.
    pub(crate) fn answer(&self) -> Option<&str> {
        match self {
            Self::Gsm8k { answer, .. } => answer.as_deref(),
            Self::Math { answer, .. } => Some(answer),
            Self::Countdown { .. } | Self::Sudoku { .. } => None,
        }
    }

    /// The task that the problem belongs to.
    pub fn benchmark(&self) -> Benchmark {
        match self {
            Self::Gsm8k { .. } => Benchmark::Gsm8k,
            Self::Math { .. } => Benchmark::Math,
            Self::Countdown { .. } => Benchmark::Countdown,
            Self::Sudoku { .. } => Benchmark::Sudoku,
        }
    }
}

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
    pub fn share(self) -> f64 {
        f64::from(self.correct) / f64::from(self.empty.max(1))
    }
}

pub(crate) const CELLS: usize = 16;

/// Blanks of the puzzle that the answer fills as the solution does, cell by cell.
pub fn cells(puzzle: &str, solution: &str, answer: &str) -> Cells {
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
