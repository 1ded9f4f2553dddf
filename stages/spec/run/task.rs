//! The `[task]` section: what is learned. Problems are a function of it and of an index.

use serde::{Deserialize, Serialize};

use super::defaults;
use crate::digest::Real;

/// What is learned. Problems are a function of the task alone, held-out ones included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Reach a target with all of the given numbers.
    Countdown(CountdownTask),
    /// Fill a 4x4 Sudoku.
    Sudoku(SudokuTask),
}

impl Task {
    /// The parts of a grade that `reward.weights` may name.
    pub fn reward_parts(&self) -> &'static [&'static str] {
        match self {
            Self::Countdown(_) => &["correct"],
            Self::Sudoku(_) => &["correct", "cells"],
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
    #[serde(default = "defaults::three")]
    pub numbers: u32,
    /// Largest number of a problem.
    #[serde(default = "defaults::nine")]
    pub max_number: u32,
    /// Largest target of a problem.
    #[serde(default = "defaults::ninety_nine")]
    pub max_target: u32,
    /// Tokens of a prompt, padded on the left.
    #[serde(default = "defaults::twelve")]
    pub prompt_tokens: u32,
    /// Share of the (numbers, target) pairs that training never sees.
    #[serde(default = "defaults::a_fifth")]
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
    #[serde(default = "defaults::eight")]
    pub blanks: u32,
    /// Share of the 288 solved grids whose puzzles training never sees.
    #[serde(default = "defaults::a_fifth")]
    pub held_out: Real,
}
