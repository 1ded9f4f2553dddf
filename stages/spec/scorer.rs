//! Reward programs: a stage asks for scores, and its caller runs the program.
//!
//! A stage does no input or output, so it is handed a [`Scorer`]. Nothing here starts a process.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{artifact::StageError, run::Program};

/// A completion to be graded by a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names it within its stage; a function of the stage's spec alone.
    pub id: String,
    /// Where its row is, for error messages: `row 17 of task.dataset.train`.
    pub place: String,
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub completion: String,
    /// What would be right, where the task says it.
    pub answer: Option<String>,
    /// The row's columns.
    pub row: Map<String, Value>,
}

/// A program's score of a completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Finite numbers by name.
    pub parts: BTreeMap<String, f64>,
    /// Whether it is right, where the program says so.
    pub correct: Option<bool>,
}

/// Runs programs that grade.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// One score a sample, in their order. `files` hold every file of the program by name. An answer that is none
    /// is [`StageError::Invalid`]; a program that ends, hangs or cannot start is [`StageError::Internal`].
    fn score(
        &self,
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        samples: &[Sample],
    ) -> Result<Vec<Score>, StageError>;
}
