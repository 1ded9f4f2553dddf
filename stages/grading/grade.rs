//! Grades a completion by a protocol: a training reward as the sum of its parts, and the verdict of an evaluation. The
//! protocols' own files decide which parts a completion earns and whether it is right.

use std::collections::BTreeMap;

use agrpo_spec::{Benchmark, Protocol};

use crate::problem::{Cells, Problem};

/// The reward of a completion in training.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Grade {
    /// Every part by name. Beside those of [`reward_parts`], AGRPO's Countdown and Sudoku have the two
    /// parts for tags, which are reported and not paid.
    pub parts: BTreeMap<&'static str, f64>,
    /// The sum of the parts that [`reward_parts`] names.
    pub reward: f64,
    /// Whether the part for correctness is earned in full.
    pub correct: bool,
    /// The answer that was graded; `None` if there was none.
    pub extracted: Option<String>,
}

impl Grade {
    pub(crate) fn of(
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

/// The parts that a benchmark's training reward is the sum of.
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

/// The answer that an evaluation read out of a completion.
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
    /// The answer that was read out of the completion, if any.
    pub extracted: Option<Extracted>,
    /// Whether it is right; for Sudoku, whether every blank is.
    pub correct: bool,
    /// The blanks; for Sudoku only.
    pub cells: Option<Cells>,
}

impl Verdict {
    /// What the completion adds to an accuracy: 1 or 0, and for Sudoku the share of its blanks.
    pub fn score(&self) -> f64 {
        self.cells.map_or(f64::from(u8::from(self.correct)), Cells::share)
    }
}
