//! Checks before a run begins: its problems can be asked, its rewards graded.

use agrpo_spec::{Base, Inputs, Run, Scorer, StageError, Task};

use super::grading::Grader;
use super::source::Problems;
use crate::model::ModelConfig;
use crate::tasks::{self, DrawnTask};
use crate::text::tokenizer::{self, TaskTokenizer};

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

/// Ids of the task's own tokenizer: an estimate where they follow from a dataset, none where only a checkpoint
/// brings a tokenizer.
pub fn vocabulary(task: &Task) -> Option<u64> {
    if matches!(task, Task::Dataset(_)) {
        return Some(CHARACTERS);
    }
    let tokenizer = TaskTokenizer::read(&tokenizer::build(&DrawnTask::of(task)?)).ok()?;
    u64::try_from(tokenizer.vocabulary()).ok()
}

/// Whether a run's problems can be asked: there are enough of them, every prompt fits, and the reward's
/// weights name what is graded; a reward program grades one completion. `inputs` hold the datasets, the
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
        Problems::Drawn { task, .. } => Ok(tasks::check_drawn(&task, held_out)?),
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
