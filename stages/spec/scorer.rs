//! Reward programs: a stage asks for scores, and its caller runs the program.
//!
//! A stage does no input or output, so its caller passes a [`Scorer`]. Nothing here starts a process.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{artifact::StageError, run::Program};

/// A completion to be graded by a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The sample's name within its stage; a function of the stage's spec alone.
    pub id: String,
    /// Where its row is, for error messages: `row 17 of task.dataset.train`.
    pub place: String,
    /// The prompt.
    pub prompt: String,
    /// The completion.
    pub completion: String,
    /// The right answer, if the task has one.
    pub answer: Option<String>,
    /// The row's columns.
    pub row: Map<String, Value>,
}

/// A program's score of a completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Finite numbers by name.
    pub parts: BTreeMap<String, f64>,
    /// Whether the completion is right, if the program decides it.
    pub correct: Option<bool>,
}

/// Runs reward programs.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// One score for each sample, in order. `files` holds every file of the program by name. An invalid answer is
    /// [`StageError::Invalid`]; a program that ends, hangs or cannot start is [`StageError::Internal`].
    fn score(
        &self,
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        samples: &[Sample],
    ) -> Result<Vec<Score>, StageError>;
}
