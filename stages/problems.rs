//! A task as a policy meets it: prompts in ids, completions graded from ids.
//!
//! Rollout and reward ask for a training problem by its number, so a reward stage needs nothing of a
//! prompt but the proof that it is the one that was asked. Evaluation asks for all held-out problems at
//! once. Which problem has which number is decided by the task alone, never by a run's seed.

use std::sync::Arc;

use agrpo_spec::{Base, Inputs, Language, Run, Sample, Scorer, StageError, Task};

use crate::error;
use crate::model::{ModelConfig, PADDING};
use crate::tasks::{self, DrawnTask};
use crate::tokenizer::{self, TaskTokenizer};

mod benchmark;
mod dataset;
mod grading;

use benchmark::{BenchmarkProblems, read};
use dataset::Item;

pub(crate) use dataset::DatasetProblems;
pub use dataset::RowGrader;
pub(crate) use grading::{Graded, Grader, NoPrograms};

/// Ids of a vocabulary of characters, for estimates made before a dataset is read: those of ASCII.
const CHARACTERS: u64 = 128;

/// Tokens of the longest prompt that a run of this task asks.
pub fn prompt_tokens(task: &Task) -> u64 {
    match (task, DrawnTask::of(task)) {
        (_, Some(drawn)) => tasks::prompt_tokens(&drawn) as u64,
        (Task::Benchmark(task), None) => task.prompt_tokens.into(),
        (Task::Dataset(task), None) => task.prompt_tokens.into(),
        (Task::Countdown(_) | Task::Sudoku(_), None) => 0,
    }
}

/// Ids of the task's own tokenizer; about as many where they follow from a dataset, and none where only a
/// checkpoint brings one.
pub fn vocabulary(task: &Task) -> Option<u64> {
    if matches!(task, Task::Dataset(_)) {
        return Some(CHARACTERS);
    }
    let tokenizer = TaskTokenizer::read(&tokenizer::build(&DrawnTask::of(task)?)).ok()?;
    u64::try_from(tokenizer.vocabulary()).ok()
}

/// Whether a run's problems can be asked: there are enough of them, every prompt fits, and the reward's
/// weights name what is graded; a program that grades is asked once. `inputs` hold the datasets, the
/// tokenizer and the program's files, where there are any.
pub fn check_run(
    run: &Run,
    held_out: u32,
    inputs: &Inputs,
    scorer: &dyn Scorer,
) -> Result<(), StageError> {
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
        all @ Problems::Dataset(_) => {
            let grader = Grader::open(&run.config().reward, inputs, scorer)?;
            all.check_dataset(run, held_out, &grader)
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
    /// Of one's own.
    Dataset(Box<DatasetProblems>),
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
    Dataset(Arc<Item>),
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
    /// What it earns, where training and evaluation grade alike.
    pub(crate) reward: Option<f64>,
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
            (Task::Dataset(task), language) => {
                let problems = DatasetProblems::open(task, language, inputs)?;
                Ok(Self::Dataset(Box::new(problems)))
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
            Self::Dataset(problems) => problems.training(number),
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
            Self::Dataset(problems) => problems.held_out(count),
        }
    }

    /// What completions earn in training, in their order.
    pub(crate) fn grade(
        &self,
        all: &[Answered<'_>],
        grader: &Grader<'_>,
    ) -> Result<Vec<Graded>, StageError> {
        if let Self::Dataset(problems) = self {
            return grader.grade(&samples(problems, all)?);
        }
        let grade = |Answered { asked, completion, .. }: &Answered<'_>| {
            let grade = match (self, &asked.question) {
                (Self::Drawn { tokenizer, .. }, Question::Drawn(question)) => {
                    tasks::grade(question, &tokenizer.text(completion)?)
                }
                (Self::Benchmark(problems), Question::Benchmark(problem)) => {
                    problems.grade(problem, completion)?
                }
                _ => return Err(another_task()),
            };
            Graded::of(&grade, grader.config())
        };
        all.iter().map(grade).collect()
    }

    /// What an evaluation makes of completions, in their order.
    pub(crate) fn mark(
        &self,
        all: &[Answered<'_>],
        grader: &Grader<'_>,
    ) -> Result<Vec<Mark>, StageError> {
        let whole = |text: String, correct: bool, reward| Mark {
            text,
            correct,
            score: f64::from(u8::from(correct)),
            most: 1.0,
            reward,
        };
        if let Self::Dataset(problems) = self {
            let samples = samples(problems, all)?;
            let graded = grader.grade(&samples)?.into_iter();
            let mark = |(sample, grade): (Sample, Graded)| {
                whole(sample.completion, grade.correct, Some(grade.reward))
            };
            return Ok(samples.into_iter().zip(graded).map(mark).collect());
        }
        let mark = |Answered { asked, completion, .. }: &Answered<'_>| match (self, &asked.question)
        {
            (Self::Drawn { tokenizer, .. }, Question::Drawn(question)) => {
                let text = tokenizer.text(completion)?;
                let correct = tasks::grade(question, &text).correct;
                Ok(whole(text, correct, None))
            }
            (Self::Benchmark(problems), Question::Benchmark(problem)) => {
                problems.mark(problem, completion)
            }
            _ => Err(another_task()),
        };
        all.iter().map(mark).collect()
    }

    /// Asks every prompt, and grades one completion: the first held-out problem's own answer.
    fn check_dataset(
        &self,
        run: &Run,
        held_out: u32,
        grader: &Grader<'_>,
    ) -> Result<(), StageError> {
        let Self::Dataset(problems) = self else { return Err(another_task()) };
        problems.check(held_out, run.config().rollout.completion_tokens)?;
        let first = self.held_out(1)?;
        let Some(Asked { question: Question::Dataset(item), .. }) = first.first() else {
            return Err(another_task());
        };
        let sample = item.sample("check/0".to_owned(), String::new());
        let completion = sample.answer.clone().unwrap_or_default();
        grader.grade(&[Sample { completion, ..sample }]).map(drop)
    }
}

/// A completion with what it answers.
#[derive(Clone, Debug)]
pub(crate) struct Answered<'a> {
    /// Names it within its stage.
    pub(crate) id: String,
    pub(crate) asked: &'a Asked,
    pub(crate) completion: &'a [i64],
}

fn samples(problems: &DatasetProblems, all: &[Answered<'_>]) -> Result<Vec<Sample>, StageError> {
    let sample = |Answered { id, asked, completion }: &Answered<'_>| match &asked.question {
        Question::Dataset(item) => Ok(item.sample(id.clone(), problems.text(completion)?)),
        Question::Drawn(_) | Question::Benchmark(_) => Err(another_task()),
    };
    all.iter().map(sample).collect()
}

fn another_task() -> StageError {
    StageError::Internal("the problem is another task's".into())
}
