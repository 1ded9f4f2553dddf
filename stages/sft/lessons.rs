//! What fine-tuning learns from: the solutions of a drawn task, or the answers of a dataset's rows.
//!
//! A benchmark has none: its problems are in words, for checkpoints that can read.

use agrpo_spec::{Inputs, StageError, Task};
use bytes::Bytes;

use crate::error;
use crate::problems::DatasetProblems;
use crate::tasks::{self, DrawnTask, Problem};
use crate::tokenizer::{self, TaskTokenizer};

/// Where examples come from, with what spells them.
#[derive(Debug)]
pub(super) enum Lessons {
    Drawn { task: DrawnTask, tokenizer: Box<TaskTokenizer>, file: Bytes },
    Dataset(Box<DatasetProblems>),
}

/// One example.
#[derive(Debug)]
pub(super) struct Lesson {
    /// As many characters as every prompt of the task.
    pub(super) prompt: String,
    pub(super) solution: String,
    /// What was drawn, where something was.
    problem: Option<Problem>,
}

impl Lesson {
    /// The wrong answer of a careless demonstrator, where the problem is hard.
    pub(super) fn careless(&self) -> Option<String> {
        tasks::careless_solution(self.problem.as_ref()?)
    }
}

impl Lessons {
    pub(super) fn open(task: &Task, inputs: &Inputs) -> Result<Self, StageError> {
        if let Task::Dataset(task) = task {
            let problems = DatasetProblems::open(task, None, inputs)?;
            return Ok(Self::Dataset(Box::new(problems)));
        }
        let task = DrawnTask::of(task).ok_or_else(|| {
            error::invalid("fine-tuning learns from answers, which a benchmark has none of")
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
    pub(super) fn nth(&self, index: u64) -> Result<Lesson, StageError> {
        match self {
            Self::Drawn { task, .. } => {
                let example = tasks::training_example(task, index).map_err(|e| error::task(&e))?;
                let (problem, solution) = (example.problem, example.solution);
                Ok(Lesson { prompt: problem.prompt.clone(), solution, problem: Some(problem) })
            }
            Self::Dataset(problems) => {
                let (prompt, solution) = problems.example(index)?;
                Ok(Lesson { prompt, solution, problem: None })
            }
        }
    }
}
