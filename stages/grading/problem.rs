//! A question of a benchmark with its truth. Prompts and graders are elsewhere.

use agrpo_spec::Benchmark;

/// A question with its truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// `answer`: what follows `####`, commas included; `None` where no number can be right.
    Gsm8k {
        /// As it is put to the model.
        question: String,
        /// The gold answer.
        answer: Option<String>,
    },
    /// `answer`: LaTeX, without its box.
    Math {
        /// As it is put to the model.
        question: String,
        /// The gold answer.
        answer: String,
    },
    /// Every number is to be used once.
    Countdown {
        /// In the order in which they are shown.
        numbers: Vec<u32>,
        /// What the expression has to come to.
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
    /// The task that the problem belongs to.
    #[must_use]
    pub fn benchmark(&self) -> Benchmark {
        match self {
            Self::Gsm8k { .. } => Benchmark::Gsm8k,
            Self::Math { .. } => Benchmark::Math,
            Self::Countdown { .. } => Benchmark::Countdown,
            Self::Sudoku { .. } => Benchmark::Sudoku,
        }
    }
}
