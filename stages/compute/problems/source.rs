//! The problems of a task and the grades of their completions: dispatches to the code of each kind of task.

use std::sync::Arc;

use agrpo_spec::{Inputs, Run, Sample, Task};

use super::grading::{Graded, Grader};
use super::question::{Answered, Asked, EvaluationGrade, Example, Question, another_task};
use super::{benchmark::BenchmarkProblems, dataset::DatasetProblems};
use crate::error::{Result, invalid};
use crate::tasks::{self, DrawnTask};
use crate::text::{self, chat::ChatTokenizer, tokenizer::TaskTokenizer};

#[derive(Debug)]
pub(crate) enum Problems {
    /// Drawn from a seed, and tokenized by the task's own tokenizer.
    Drawn {
        task: DrawnTask,
        /// One character, one token.
        tokenizer: Box<TaskTokenizer>,
    },
    /// Those of public datasets, in words.
    Benchmark(Box<BenchmarkProblems>),
    /// The rows of a user's own dataset.
    Dataset(Box<DatasetProblems>),
}

impl Problems {
    /// The task's problems, from the datasets that a spec names, spelled by the tokenizer of its checkpoint if it
    /// has one.
    pub(crate) fn open(
        task: &Task,
        tokenizer: Option<Arc<ChatTokenizer>>,
        inputs: &Inputs,
    ) -> Result<Self> {
        let task = match task {
            Task::Benchmark(task) => {
                let missing = || invalid("a benchmark's problems need a tokenizer to spell them");
                let problems =
                    BenchmarkProblems::open(task, tokenizer.ok_or_else(missing)?, inputs)?;
                return Ok(Self::Benchmark(Box::new(problems)));
            }
            Task::Dataset(task) => {
                let problems = DatasetProblems::open(task, tokenizer, inputs)?;
                return Ok(Self::Dataset(Box::new(problems)));
            }
            Task::Countdown(task) => DrawnTask::Countdown(task.clone()),
            Task::Sudoku(task) => DrawnTask::Sudoku(task.clone()),
        };
        let tokenizer = Box::new(TaskTokenizer::read(&text::tokenizer::build())?);
        Ok(Self::Drawn { task, tokenizer })
    }

    /// The task's own tokenizer; none if a checkpoint has one.
    pub(crate) fn tokenizer(&self) -> Option<&TaskTokenizer> {
        match self {
            Self::Drawn { tokenizer, .. } => Some(tokenizer),
            Self::Dataset(problems) => problems.characters(),
            Self::Benchmark(_) => None,
        }
    }

    /// The n-th example of fine-tuning, counted from 0. A benchmark has no answers to learn from.
    pub(crate) fn example(&self, number: u64) -> Result<Example> {
        match self {
            Self::Drawn { task, .. } => {
                let tasks::Example { problem, solution } = tasks::training_example(task, number)?;
                Ok(Example { prompt: problem.prompt.clone(), solution, problem: Some(problem) })
            }
            Self::Dataset(problems) => {
                let (prompt, solution) = problems.example(number)?;
                Ok(Example { prompt, solution, problem: None })
            }
            Self::Benchmark(_) => Err(another_task()),
        }
    }

    /// The n-th problem of reinforcement learning, counted from 0 over the whole run.
    pub(crate) fn training(&self, number: u64) -> Result<Asked> {
        match self {
            Self::Drawn { task, tokenizer } => {
                Asked::drawn(tasks::training_problem(task, number)?, tokenizer)
            }
            Self::Benchmark(problems) => problems.training(number),
            Self::Dataset(problems) => problems.training(number),
        }
    }

    pub(crate) fn held_out(&self, count: u32) -> Result<Vec<Asked>> {
        match self {
            Self::Drawn { task, tokenizer } => {
                let all = tasks::held_out_problems(task, count)?;
                all.into_iter().map(|problem| Asked::drawn(problem, tokenizer)).collect()
            }
            Self::Benchmark(problems) => problems.held_out(count),
            Self::Dataset(problems) => problems.held_out(count),
        }
    }

    /// The grades of completions in training, in their order.
    pub(crate) fn grade(&self, all: &[Answered<'_>], grader: &Grader<'_>) -> Result<Vec<Graded>> {
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

    /// The grades of completions in an evaluation, in their order.
    pub(crate) fn evaluate(
        &self,
        all: &[Answered<'_>],
        grader: &Grader<'_>,
    ) -> Result<Vec<EvaluationGrade>> {
        let whole = |text: String, correct: bool, reward| EvaluationGrade {
            text,
            correct,
            score: f64::from(u8::from(correct)),
            most: 1.0,
            reward,
        };
        if let Self::Dataset(problems) = self {
            let samples = samples(problems, all)?;
            let graded = grader.grade(&samples)?.into_iter();
            let evaluated = |(sample, grade): (Sample, Graded)| {
                whole(sample.completion, grade.correct, Some(grade.reward))
            };
            return Ok(samples.into_iter().zip(graded).map(evaluated).collect());
        }
        let evaluate =
            |Answered { asked, completion, .. }: &Answered<'_>| match (self, &asked.question) {
                (Self::Drawn { tokenizer, .. }, Question::Drawn(question)) => {
                    let text = tokenizer.text(completion)?;
                    let correct = tasks::grade(question, &text).correct;
                    Ok(whole(text, correct, None))
                }
                (Self::Benchmark(problems), Question::Benchmark(problem)) => {
                    problems.evaluate(problem, completion)
                }
                _ => Err(another_task()),
            };
        all.iter().map(evaluate).collect()
    }

    /// Tokenizes every prompt, and grades one completion: the first held-out problem's own answer.
    pub(super) fn check_dataset(
        &self,
        run: &Run,
        held_out: u32,
        grader: &Grader<'_>,
    ) -> Result<()> {
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

fn samples(problems: &DatasetProblems, all: &[Answered<'_>]) -> Result<Vec<Sample>> {
    let sample = |Answered { id, asked, completion }: &Answered<'_>| match &asked.question {
        Question::Dataset(item) => Ok(item.sample(id.clone(), problems.text(completion)?)),
        Question::Drawn(_) | Question::Benchmark(_) => Err(another_task()),
    };
    all.iter().map(sample).collect()
}
