//! The tasks that papers report: their prompts, data sets, rewards and graders, under two protocols.
//!
//! [`Benchmark`] is a task, [`Protocol`] whose rules it is trained and measured by, [`Problem`] one question
//! with its truth. [`messages`] asks, [`reward`] pays a completion part by part, and [`verdict`] says what an
//! evaluation makes of it. [`rows`] reads published data sets, [`problem`] makes a problem of a row,
//! [`training_problems`] and [`evaluation_problems`] keep what a protocol uses.
//!
//! Pure text: no tensor, no tokenizer, no file, no clock. Quirks of the published graders are kept on
//! purpose, for figures are compared by them; `docs/grading.md` tells them in plain words.

mod agrpo;
mod d1;
mod data;
mod expression;
mod graded;
mod hendrycks;
mod mathematics;
mod own;
mod prompts;
mod python;
mod subset;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use agrpo_spec::{Benchmark, Protocol};

pub use data::{
    Columns, DataError, Format, LONGEST_ROW, Placed, Row, evaluation_problems, json_columns,
    json_object, problem, rows, training_problems,
};
pub use graded::{TruthError, problem_of_truth};
pub use own::{AnswerError, Rules, Template, TemplateError, program_answer};
pub use prompts::{evaluation_messages, evaluation_prefill, messages};
pub use subset::d1_evaluation_order;

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

/// Who speaks in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the rules.
    System,
    /// Asks.
    User,
    /// Answers: the model.
    Assistant,
}

impl Role {
    /// The role's name in chat templates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a chat, before any chat template strips it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What a completion earns in training.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Grade {
    /// Every part by name. Beside those of [`reward_parts`], AGRPO's Countdown and Sudoku have the two
    /// parts for tags, which are looked at and not paid.
    pub parts: BTreeMap<&'static str, f64>,
    /// The sum of the parts that [`reward_parts`] names.
    pub reward: f64,
    /// Whether the part for correctness is earned in full.
    pub correct: bool,
    /// The answer that was graded; `None` if there was none.
    pub extracted: Option<String>,
}

/// What an evaluation read out of a completion.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Extracted {
    /// GSM8K by d1 reads numbers; one that is not finite is written as `null`.
    Number(f64),
    /// All others read text.
    Text(String),
}

/// Blanks of a Sudoku.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cells {
    /// Blanks filled as in the solution.
    pub correct: u32,
    /// All blanks of the puzzle.
    pub empty: u32,
}

/// What an evaluation says of a completion.
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
            Some(cells) => f64::from(cells.correct) / f64::from(cells.empty.max(1)),
            None => f64::from(u8::from(self.correct)),
        }
    }
}

/// The parts that a benchmark's training reward is the sum of.
#[must_use]
pub fn reward_parts(benchmark: Benchmark, protocol: Protocol) -> &'static [&'static str] {
    match (protocol, benchmark) {
        (Protocol::D1, Benchmark::Gsm8k) => {
            &["xmlcount", "soft_format", "strict_format", "int", "correctness"]
        }
        (Protocol::D1, Benchmark::Math) => &["correctness", "boxed_format"],
        (Protocol::D1, Benchmark::Countdown) => &["countdown"],
        (Protocol::D1, Benchmark::Sudoku) => &["sudoku"],
        (Protocol::Agrpo, Benchmark::Gsm8k | Benchmark::Math) => {
            &["thinking_format", "answer_format", "correctness"]
        }
        (Protocol::Agrpo, Benchmark::Countdown) => &["countdown_format", "countdown_correct"],
        (Protocol::Agrpo, Benchmark::Sudoku) => &["sudoku_format", "sudoku_correct"],
    }
}

/// What a completion earns in training under a protocol. Never fails: what cannot be read earns nothing.
#[must_use]
pub fn reward(problem: &Problem, protocol: Protocol, completion: &str) -> Grade {
    match protocol {
        Protocol::D1 => d1::reward(problem, completion),
        Protocol::Agrpo => agrpo::reward(problem, completion),
    }
}

/// What a protocol's evaluation says of a completion.
#[must_use]
pub fn verdict(problem: &Problem, protocol: Protocol, completion: &str) -> Verdict {
    match protocol {
        Protocol::D1 => d1::evaluation::verdict(problem, completion),
        Protocol::Agrpo => agrpo::verdict(problem, completion),
    }
}

impl Grade {
    fn of(
        problem: &Problem,
        protocol: Protocol,
        parts: &[(&'static str, f64)],
        correct: bool,
        extracted: Option<String>,
    ) -> Self {
        let parts: BTreeMap<&'static str, f64> = parts.iter().copied().collect();
        let paid = reward_parts(problem.benchmark(), protocol);
        let reward = paid.iter().filter_map(|name| parts.get(name)).sum();
        Self { parts, reward, correct, extracted }
    }
}
