//! The section `[task]`: what is learned. Problems are a function of it and of an index.

use serde::{Deserialize, Serialize};

use super::defaults;
use crate::digest::{ArtifactDigest, Real};
use crate::names::named;

/// What is learned. Problems are a function of the task alone, held-out ones included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Reach a target with all of the given numbers.
    Countdown(CountdownTask),
    /// Fill a 4x4 Sudoku.
    Sudoku(SudokuTask),
    /// A public task in words, from a dataset, for a checkpoint that knows a language.
    Benchmark(BenchmarkTask),
    /// Rows of a user's own dataset, with a template for the prompt.
    Dataset(DatasetTask),
}

impl Task {
    /// The parts that `reward.weights` may name, where they follow from the task alone.
    pub fn reward_parts(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Countdown(_) => Some(&["correct"]),
            Self::Sudoku(_) => Some(&["correct", "cells"]),
            Self::Benchmark(_) | Self::Dataset(_) => None,
        }
    }

    /// The datasets of the problems, with their roles. Training reads the held-out ones to leave them out.
    pub fn datasets(&self) -> Vec<(&'static str, ArtifactDigest)> {
        match self {
            Self::Countdown(_) | Self::Sudoku(_) => vec![],
            Self::Benchmark(BenchmarkTask { train, test, .. })
            | Self::Dataset(DatasetTask { train, test, .. }) => {
                vec![("train", *train), ("test", *test)]
            }
        }
    }
}

/// Countdown: `numbers` integers of 1..=max_number, each to be used once with + - * /.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct CountdownTask {
    /// Names the set of problems.
    #[serde(default)]
    pub seed: u64,
    /// How many numbers a problem has.
    #[serde(default = "defaults::whole::<3>")]
    pub numbers: u32,
    /// Largest number of a problem.
    #[serde(default = "defaults::whole::<9>")]
    pub max_number: u32,
    /// Largest target of a problem.
    #[serde(default = "defaults::whole::<99>")]
    pub max_target: u32,
    /// Tokens of a prompt, padded on the left.
    #[serde(default = "defaults::whole::<12>")]
    pub prompt_tokens: u32,
    /// Share of the (numbers, target) pairs that training never sees.
    #[serde(default = "defaults::ratio::<2, 10>")]
    pub held_out: Real,
}

/// Sudoku of 4x4 cells with a unique solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct SudokuTask {
    /// Names the set of problems.
    #[serde(default)]
    pub seed: u64,
    /// Empty cells of a puzzle.
    #[serde(default = "defaults::whole::<8>")]
    pub blanks: u32,
    /// Share of the 288 solved grids whose puzzles training never sees.
    #[serde(default = "defaults::ratio::<2, 10>")]
    pub held_out: Real,
}

/// A task that papers report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Benchmark {
    /// Word problems of primary school with a number as answer (Cobbe et al., arXiv 2110.14168).
    Gsm8k,
    /// Competition problems with a LaTeX expression as answer (Hendrycks et al., arXiv 2103.03874).
    Math,
    /// Reach a target with three numbers.
    Countdown,
    /// Fill a 4x4 grid.
    Sudoku,
}

named!(Benchmark { Gsm8k: "gsm8k", Math: "math", Countdown: "countdown", Sudoku: "sudoku" });

/// The publication whose prompts, rewards and graders are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// d1 (Zhao et al., arXiv 2504.12216), the common ground of most papers on diffusion language models.
    D1,
    /// AGRPO (arXiv 2510.04019).
    Agrpo,
}

named!(Protocol { D1: "d1", Agrpo: "agrpo" });

/// A public task: its protocol, and its datasets by the SHA-256 of their files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkTask {
    /// Which task.
    pub name: Benchmark,
    /// Whose prompts, rewards and grading.
    pub protocol: Protocol,
    /// Training problems, in JSONL, Parquet or CSV.
    pub train: ArtifactDigest,
    /// Held-out problems, in the same formats.
    pub test: ArtifactDigest,
    /// Names the order in which training problems come.
    #[serde(default)]
    pub seed: u64,
    /// Tokens of the longest prompt; a run with a longer one is refused.
    #[serde(default = "defaults::whole::<1024>")]
    pub prompt_tokens: u32,
}

/// A custom task: rows, and the template that renders a row as a prompt. `[reward]` grades the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct DatasetTask {
    /// Training rows, in JSONL, Parquet or CSV.
    pub train: ArtifactDigest,
    /// Held-out rows, in the same formats.
    pub test: ArtifactDigest,
    /// The prompt: a Jinja template whose fields are the row's columns.
    pub prompt: String,
    /// The right answer, also a template. Fine-tuning learns it, and rules compare with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The system message for a checkpoint, also a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Names the order in which training rows come.
    #[serde(default)]
    pub seed: u64,
    /// Tokens of the longest prompt; a longer one is refused. For a model from scratch, characters; every prompt is
    /// padded to this length.
    pub prompt_tokens: u32,
}
