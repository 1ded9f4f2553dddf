//! Training rewards: the parts that each protocol adds up. Which part a completion earns is decided by the
//! protocol's own file.

use std::collections::BTreeMap;

use agrpo_spec::{Benchmark, Protocol};

use crate::problem::Problem;

/// What a completion earns in training.
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
