//! Checks before a run begins that its prompts can be tokenized and its completions graded.

use agrpo_spec::{Base, Inputs, Run, Scorer, StageError, Task};

use super::{cache::ProblemCache, grading::Grader, source::Problems};
use crate::model::ModelConfig;
use crate::tasks::{self, DrawnTask};
use crate::text::tokenizer::{self, TaskTokenizer};

/// Ids of a vocabulary of characters, for estimates made before a dataset is read: those of ASCII.
const CHARACTERS: u64 = 128;

/// Tokens of the longest prompt of a run of this task.
pub fn prompt_tokens(task: &Task) -> u64 {
    match task {
        Task::Benchmark(task) => task.prompt_tokens.into(),
        Task::Dataset(task) => task.prompt_tokens.into(),
        Task::Countdown(_) | Task::Sudoku(_) => {
            DrawnTask::of(task).map_or(0, |drawn| tasks::prompt_tokens(&drawn) as u64)
        }
    }
}

/// Ids of the task's own tokenizer, estimated for a dataset; none if a checkpoint has one.
pub fn vocabulary(task: &Task) -> Option<u64> {
    if matches!(task, Task::Dataset(_)) {
        return Some(CHARACTERS);
    }
    DrawnTask::of(task)?;
    let tokenizer = TaskTokenizer::read(&tokenizer::build()).ok()?;
    u64::try_from(tokenizer.vocabulary).ok()
}

/// Checks that a run has enough problems, that every prompt fits, and that the weights name graded parts. `inputs` hold
/// the datasets, the tokenizer and the reward program's files.
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
    let problems = ProblemCache::default().problems(task, run.base().language(), inputs)?;
    match &*problems {
        Problems::Drawn { task, .. } => Ok(tasks::check_drawn(task, held_out)?),
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
