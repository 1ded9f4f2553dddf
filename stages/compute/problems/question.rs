//! A problem as a policy sees it, and a completion with its grade: types that all kinds of tasks share.

use std::sync::Arc;

use agrpo_spec::StageError;

use super::templates::Item;
use crate::{error::internal, model::PADDING, tasks, text::tokenizer::TaskTokenizer};

/// A problem as a policy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) prompt: Vec<i64>,
    /// The prompt for people.
    pub(crate) shown: String,
    pub(super) question: Question,
}

#[derive(Clone, Debug)]
pub(super) enum Question {
    Drawn(tasks::Question),
    Benchmark(agrpo_grading::Problem),
    Dataset(Arc<Item>),
}

#[derive(Clone, Debug)]
pub(crate) struct EvaluationGrade {
    /// The completion for people.
    pub(crate) text: String,
    pub(crate) correct: bool,
    /// What it adds to the accuracy.
    pub(crate) score: f64,
    /// The most that it could have added.
    pub(crate) most: f64,
    /// Its reward, where training and evaluation grade alike.
    pub(crate) reward: Option<f64>,
}

impl Asked {
    /// Whether a recorded prompt, without the padding on its left, is this one.
    pub(crate) fn is_stated_by(&self, prompt: &[i64]) -> bool {
        let padding = prompt.iter().take_while(|&&id| id == PADDING).count();
        prompt[padding..] == self.prompt
    }

    pub(super) fn drawn(
        problem: tasks::Problem,
        tokenizer: &TaskTokenizer,
    ) -> Result<Self, StageError> {
        Ok(Self {
            prompt: tokenizer.ids(&problem.prompt)?,
            shown: problem.prompt.trim().to_owned(),
            question: Question::Drawn(problem.question),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Example {
    /// As many characters as every prompt of the task.
    pub(crate) prompt: String,
    pub(crate) solution: String,
    /// The problem, where the task draws its problems.
    pub(crate) problem: Option<tasks::Problem>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answered<'a> {
    /// The completion's name within its stage.
    pub(crate) id: String,
    pub(crate) asked: &'a Asked,
    pub(crate) completion: &'a [i64],
}

/// The error of a problem that is graded by another task than its own.
pub(super) fn another_task() -> StageError {
    internal("the problem is another task's")
}
