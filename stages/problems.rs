//! A task as a policy meets it: prompts in ids, completions graded from ids.
//!
//! Rollout and reward ask for a training problem by its number, so a reward stage needs nothing of a
//! prompt but the proof that it is the one that was asked. Evaluation asks for all held-out problems at
//! once. Which problem has which number is decided by the task alone, never by a run's seed.

use agrpo_spec::{Base, Inputs, Language, Run, StageError, Task};

use crate::error;
use crate::model::{ModelConfig, PADDING};
use crate::tasks::{self, DrawnTask, Grade};
use crate::tokenizer::{self, TaskTokenizer};

mod benchmark;

use benchmark::BenchmarkProblems;

/// Tokens of the longest prompt that a run of this task asks.
pub fn prompt_tokens(task: &Task) -> u64 {
    match (task, DrawnTask::of(task)) {
        (_, Some(drawn)) => tasks::prompt_tokens(&drawn) as u64,
        (Task::Benchmark(task), None) => task.prompt_tokens.into(),
        (Task::Countdown(_) | Task::Sudoku(_), None) => 0,
    }
}

/// Ids of a drawn task's own tokenizer; none where a checkpoint brings one.
pub fn vocabulary(task: &Task) -> Option<u64> {
    let tokenizer = TaskTokenizer::read(&tokenizer::build(&DrawnTask::of(task)?)).ok()?;
    u64::try_from(tokenizer.vocabulary()).ok()
}

/// Whether a run's problems can be asked: there are enough of them, every prompt fits, and the reward's
/// weights name what is graded. `inputs` hold the datasets and the tokenizer, where there are any.
pub fn check_run(run: &Run, held_out: u32, inputs: &Inputs) -> Result<(), StageError> {
    let task = &run.config().task;
    if let Base::Checkpoint(checkpoint) = run.base() {
        let config = ModelConfig::from_json(inputs.blob(checkpoint.config)?)?;
        config.check_shape(&checkpoint.shape)?;
    }
    match Problems::open(task, run.base().language(), inputs)? {
        Problems::Drawn { task, .. } => {
            tasks::check_drawn(&task, held_out).map_err(|e| error::task(&e))
        }
        Problems::Benchmark(problems) => {
            problems.check_weights(&run.config().reward)?;
            problems.check_prompts(held_out)
        }
    }
}

/// The problems of a task, with what spells them.
#[derive(Debug)]
pub(crate) enum Problems {
    /// Drawn, and spelt by the task's own tokenizer.
    Drawn {
        /// From which they follow.
        task: DrawnTask,
        /// One character, one token.
        tokenizer: Box<TaskTokenizer>,
    },
    /// Public ones, in words.
    Benchmark(Box<BenchmarkProblems>),
}

/// A problem as it is put to a policy.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The prompt's ids.
    pub(crate) prompt: Vec<i64>,
    /// The prompt for people.
    pub(crate) shown: String,
    question: Question,
}

#[derive(Clone, Debug)]
enum Question {
    Drawn(tasks::Question),
    Benchmark(agrpo_protocols::Problem),
}

/// What an evaluation makes of a completion.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The completion for people.
    pub(crate) text: String,
    /// Whether the problem is solved.
    pub(crate) correct: bool,
    /// What it adds to the accuracy.
    pub(crate) score: f64,
    /// What it could have added.
    pub(crate) most: f64,
}

impl Asked {
    /// Whether a recorded prompt, with whatever padding on its left, is this one.
    pub(crate) fn is_stated_by(&self, prompt: &[i64]) -> bool {
        let padding = prompt.iter().take_while(|&&id| id == PADDING).count();
        prompt[padding..] == self.prompt
    }

    fn drawn(problem: tasks::Problem, tokenizer: &TaskTokenizer) -> Result<Self, StageError> {
        Ok(Self {
            prompt: tokenizer.ids(&problem.prompt)?,
            shown: problem.prompt.trim().to_owned(),
            question: Question::Drawn(problem.question),
        })
    }
}

impl Problems {
    /// The task's problems, from the datasets and the tokenizer that a spec names.
    pub(crate) fn open(
        task: &Task,
        language: Option<Language>,
        inputs: &Inputs,
    ) -> Result<Self, StageError> {
        match (task, language) {
            (Task::Benchmark(task), Some(language)) => {
                let problems = BenchmarkProblems::open(task, language, inputs)?;
                Ok(Self::Benchmark(Box::new(problems)))
            }
            (Task::Benchmark(_), None) => {
                Err(error::invalid("a benchmark's problems need a tokenizer to spell them"))
            }
            (Task::Countdown(task), _) => Self::drawn(DrawnTask::Countdown(task.clone())),
            (Task::Sudoku(task), _) => Self::drawn(DrawnTask::Sudoku(task.clone())),
        }
    }

    fn drawn(task: DrawnTask) -> Result<Self, StageError> {
        let tokenizer = Box::new(TaskTokenizer::read(&tokenizer::build(&task))?);
        Ok(Self::Drawn { task, tokenizer })
    }

    /// The n-th problem of reinforcement learning, counted from 0 over the whole run.
    pub(crate) fn training(&self, number: u64) -> Result<Asked, StageError> {
        match self {
            Self::Drawn { task, tokenizer } => {
                let problem = tasks::training_problem(task, number).map_err(|e| error::task(&e))?;
                Asked::drawn(problem, tokenizer)
            }
            Self::Benchmark(problems) => problems.training(number),
        }
    }

    /// The first `count` held-out problems.
    pub(crate) fn held_out(&self, count: u32) -> Result<Vec<Asked>, StageError> {
        match self {
            Self::Drawn { task, tokenizer } => {
                let all = tasks::held_out_problems(task, count).map_err(|e| error::task(&e))?;
                all.into_iter().map(|problem| Asked::drawn(problem, tokenizer)).collect()
            }
            Self::Benchmark(problems) => problems.held_out(count),
        }
    }

    /// What a completion earns in training.
    pub(crate) fn grade(&self, asked: &Asked, completion: &[i64]) -> Result<Grade, StageError> {
        match (self, &asked.question) {
            (Self::Drawn { tokenizer, .. }, Question::Drawn(question)) => {
                Ok(tasks::grade(question, &tokenizer.text(completion)?))
            }
            (Self::Benchmark(problems), Question::Benchmark(problem)) => {
                problems.grade(problem, completion)
            }
            _ => Err(StageError::Internal("the problem is another task's".into())),
        }
    }

    /// What an evaluation makes of a completion.
    pub(crate) fn mark(&self, asked: &Asked, completion: &[i64]) -> Result<Mark, StageError> {
        match (self, &asked.question) {
            (Self::Drawn { tokenizer, .. }, Question::Drawn(question)) => {
                let text = tokenizer.text(completion)?;
                let correct = tasks::grade(question, &text).correct;
                Ok(Mark { text, correct, score: f64::from(u8::from(correct)), most: 1.0 })
            }
            (Self::Benchmark(problems), Question::Benchmark(problem)) => {
                problems.mark(problem, completion)
            }
            _ => Err(StageError::Internal("the problem is another task's".into())),
        }
    }
}
