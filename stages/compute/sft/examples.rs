//! The examples of fine-tuning: the solutions of a drawn task, or the answers of a dataset's rows.
//!
//! Refuses a benchmark, which has no answers: its problems are for checkpoints that can read.

use agrpo_spec::{Inputs, StageError, Task};
use bytes::Bytes;

use crate::error::invalid;
use crate::problems::DatasetProblems;
use crate::tasks::{self, DrawnTask, Problem};
use crate::text::tokenizer::{self, TaskTokenizer};

/// Where examples come from, with what spells them.
#[derive(Debug)]
pub(super) enum Examples {
    Drawn { task: DrawnTask, tokenizer: Box<TaskTokenizer>, file: Bytes },
    Dataset(Box<DatasetProblems>),
}

/// One example.
#[derive(Debug)]
pub(super) struct Example {
    /// As many characters as every prompt of the task.
    pub(super) prompt: String,
    pub(super) solution: String,
    /// The problem, where the task draws its problems.
    problem: Option<Problem>,
}

impl Example {
    /// The wrong answer of a noisy demonstration; `None` where the problem is easy.
    pub(super) fn noise(&self) -> Option<String> {
        tasks::noisy_solution(self.problem.as_ref()?)
    }
}

impl Examples {
    pub(super) fn open(task: &Task, inputs: &Inputs) -> Result<Self, StageError> {
        if let Task::Dataset(task) = task {
            let problems = DatasetProblems::open(task, None, inputs)?;
            return Ok(Self::Dataset(Box::new(problems)));
        }
        let task = DrawnTask::of(task).ok_or_else(|| {
            invalid("fine-tuning learns from answers, which a benchmark has none of")
        })?;
        let file = Bytes::from(tokenizer::build(&task));
        let tokenizer = Box::new(TaskTokenizer::read(&file)?);
        Ok(Self::Drawn { task, tokenizer, file })
    }

    fn spelling(&self) -> (&TaskTokenizer, &Bytes) {
        match self {
            Self::Drawn { tokenizer, file, .. } => (tokenizer, file),
            Self::Dataset(problems) => {
                problems.characters().expect("opened without a checkpoint's tokenizer")
            }
        }
    }

    pub(super) fn tokenizer(&self) -> &TaskTokenizer {
        self.spelling().0
    }

    /// The bytes of the policy's `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> &Bytes {
        self.spelling().1
    }

    /// Tokens of every prompt.
    pub(super) fn prompt_tokens(&self) -> usize {
        match self {
            Self::Drawn { task, .. } => tasks::prompt_tokens(task),
            Self::Dataset(problems) => problems.prompt_tokens(),
        }
    }

    /// The n-th example, counted from 0.
    pub(super) fn nth(&self, index: u64) -> Result<Example, StageError> {
        match self {
            Self::Drawn { task, .. } => {
                let example = tasks::training_example(task, index)?;
                let (problem, solution) = (example.problem, example.solution);
                Ok(Example { prompt: problem.prompt.clone(), solution, problem: Some(problem) })
            }
            Self::Dataset(problems) => {
                let (prompt, solution) = problems.example(index)?;
                Ok(Example { prompt, solution, problem: None })
            }
        }
    }
}
