//! Tasks: the n-th problem, its answer, and whether a completion is right.
//!
//! A problem is a function of `[task]` and an index, never of the run's seed, so every run on a task learns from
//! the same problems and is measured on the same ones. Each problem belongs to one side, training or held-out, by
//! itself.
//!
//! Refuses a task without enough problems, with numbers; repairs nothing.

use std::collections::{BTreeMap, BTreeSet};

pub use agrpo_grading::Grade;
use agrpo_grading::cells;
use agrpo_spec::{CountdownTask, Message, Purpose, Seed, StageError, SudokuTask, Task};

use crate::error::invalid;

mod countdown;
mod question;
mod score;
mod sudoku;

pub(crate) use question::Question;
pub use score::{RowError, score_row};

/// Draws after which the search for a problem ends with an error.
const ATTEMPTS: u64 = 100_000;

/// Consecutive held-out draws that may bring nothing new.
const MISSES: u64 = 20_000;

/// A task whose problems are drawn from a seed, rather than read from a dataset.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DrawnTask {
    Countdown(CountdownTask),
    Sudoku(SudokuTask),
}

impl DrawnTask {
    /// The task of a run file; `None` where its problems are not drawn.
    pub(crate) fn of(task: &Task) -> Option<Self> {
        match task {
            Task::Countdown(task) => Some(Self::Countdown(task.clone())),
            Task::Sudoku(task) => Some(Self::Sudoku(task.clone())),
            Task::Benchmark(_) | Task::Dataset(_) => None,
        }
    }
}

/// A question as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Exactly [`prompt_tokens`] characters, padded with spaces on the left.
    pub(crate) prompt: String,
    pub(crate) question: Question,
}

/// A problem with an answer to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Example {
    pub(crate) problem: Problem,
    pub(crate) solution: String,
}

/// A task that has too few problems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// No problem of one side of the split came up.
    #[error(
        "task.{task}: {ATTEMPTS} draws brought no {side} problem: widen the task, or change task.{task}.held_out"
    )]
    None {
        /// The task's name.
        task: &'static str,
        /// `training` or `held-out`.
        side: &'static str,
    },
    /// There are fewer held-out problems than requested.
    #[error(
        "task.{task}: {wanted} held-out problems were asked for, {found} were found and {MISSES} more draws brought no other: lower evaluation.problems, raise task.{task}.held_out, or widen the task"
    )]
    HeldOut {
        /// The task's name.
        task: &'static str,
        /// How many were found.
        found: usize,
        /// How many were requested.
        wanted: u32,
    },
}

/// Invalid, not retried: a task without enough problems has too few on every attempt.
impl From<TaskError> for StageError {
    fn from(error: TaskError) -> Self {
        invalid(Message::of(error))
    }
}

/// The streams of draws, by their place in seeds.
#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Training = 0,
    Examples = 1,
    HeldOut = 2,
}

/// Tokens of every prompt of the task.
pub(crate) fn prompt_tokens(task: &DrawnTask) -> usize {
    match task {
        DrawnTask::Countdown(task) => task.prompt_tokens as usize,
        DrawnTask::Sudoku(_) => sudoku::CELLS,
    }
}

/// The problem of the n-th prompt of reinforcement learning, counted from 0.
pub(crate) fn training_problem(task: &DrawnTask, index: u64) -> Result<Problem, TaskError> {
    draw(task, Stream::Training, index).map(|example| example.problem)
}

/// The n-th example of fine-tuning, counted from 0; drawn like training problems, from another stream.
pub(crate) fn training_example(task: &DrawnTask, index: u64) -> Result<Example, TaskError> {
    draw(task, Stream::Examples, index)
}

/// The wrong answer of a noisy demonstration of a hard problem; `None` for easy ones.
pub(crate) fn noisy_solution(problem: &Problem) -> Option<String> {
    match &problem.question {
        Question::Countdown { numbers, target } => countdown::noisy(numbers, *target),
        Question::Sudoku { puzzle, solution } => sudoku::noisy(puzzle, solution),
    }
}

/// The first `count` held-out problems, no two prompts alike; more of them begin with the same ones.
pub(crate) fn held_out_problems(task: &DrawnTask, count: u32) -> Result<Vec<Problem>, TaskError> {
    let mut problems = Vec::new();
    let mut prompts = BTreeSet::new();
    let mut misses = 0;
    for index in 0.. {
        if problems.len() == count as usize {
            break;
        }
        if misses == MISSES {
            let (task, found) = (name(task), problems.len());
            return Err(TaskError::HeldOut { task, found, wanted: count });
        }
        let problem = draw(task, Stream::HeldOut, index)?.problem;
        if prompts.insert(problem.prompt.clone()) {
            problems.push(problem);
            misses = 0;
        } else {
            misses += 1;
        }
    }
    Ok(problems)
}

/// Whether a drawn task has problems to learn from, and `held_out` to be measured on.
pub fn check_task(task: &Task, held_out: u32) -> Result<(), TaskError> {
    DrawnTask::of(task).map_or(Ok(()), |task| check_drawn(&task, held_out))
}

pub(crate) fn check_drawn(task: &DrawnTask, held_out: u32) -> Result<(), TaskError> {
    training_problem(task, 0)?;
    held_out_problems(task, held_out).map(|_| ())
}

/// Grades a completion: the text up to the first end-of-sequence token, without spaces around it.
pub(crate) fn grade(question: &Question, completion: &str) -> Grade {
    let answer = completion.trim_matches(' ');
    let mut parts = BTreeMap::new();
    let correct = match question {
        Question::Countdown { numbers, target } => countdown::is_correct(numbers, *target, answer),
        Question::Sudoku { puzzle, solution } => {
            parts.insert("cells", cells(puzzle, solution, answer).share());
            answer == solution
        }
    };
    let reward = f64::from(u8::from(correct));
    parts.insert("correct", reward);
    let extracted = (!answer.is_empty()).then(|| answer.to_owned());
    Grade { parts, reward, correct, extracted }
}

/// The task's name in run files.
fn name(task: &DrawnTask) -> &'static str {
    match task {
        DrawnTask::Countdown(_) => "countdown",
        DrawnTask::Sudoku(_) => "sudoku",
    }
}

/// The first draw at an index that is a problem and on the stream's side of the split.
fn draw(task: &DrawnTask, stream: Stream, index: u64) -> Result<Example, TaskError> {
    let root = match task {
        DrawnTask::Countdown(task) => task.seed,
        DrawnTask::Sudoku(task) => task.seed,
    };
    let seed = Seed::new(root).child(Purpose::Problem, stream as u64);
    let seed = seed.child(Purpose::Problem, index);
    let wants_held_out = stream == Stream::HeldOut;
    (0..ATTEMPTS)
        .filter_map(|attempt| attempt_draw(task, seed.child(Purpose::Problem, attempt)))
        .find(|example| is_held_out(task, &example.problem.question) == wants_held_out)
        .ok_or_else(|| TaskError::None {
            task: name(task),
            side: if wants_held_out { "held-out" } else { "training" },
        })
}

fn attempt_draw(task: &DrawnTask, seed: Seed) -> Option<Example> {
    let (question, solution) = match task {
        DrawnTask::Countdown(task) => countdown::draw(task, seed),
        DrawnTask::Sudoku(task) => sudoku::draw(task, seed),
    }?;
    let text = match &question {
        Question::Countdown { numbers, target } => countdown::prompt(numbers, *target),
        Question::Sudoku { puzzle, .. } => puzzle.clone(),
    };
    let width = prompt_tokens(task);
    Some(Example { problem: Problem { prompt: format!("{text:>width$}"), question }, solution })
}

fn is_held_out(task: &DrawnTask, question: &Question) -> bool {
    match (task, question) {
        (DrawnTask::Countdown(task), Question::Countdown { numbers, target }) => {
            countdown::is_held_out(task, numbers, *target)
        }
        (DrawnTask::Sudoku(task), Question::Sudoku { solution, .. }) => {
            sudoku::is_held_out(task, solution)
        }
        (DrawnTask::Countdown(_) | DrawnTask::Sudoku(_), _) => false,
    }
}

#[cfg(test)]
mod tests;
