//! Checks what a run starts from: a model of its own and its fine-tuning, or a checkpoint, as the task requires.

use super::family;
use crate::run::base::{Base, CheckpointShape, ModelShape, SftConfig};
use crate::run::error::{RunError, below_one, not_negative, positive, setting, share, within};
use crate::run::{config::RunConfig, learning::OptimizerConfig, task::Task};

/// Checks that there is either a model with its fine-tuning or a checkpoint; tasks in words need a checkpoint.
pub(super) fn base(config: &RunConfig) -> Result<Base, RunError> {
    let is_benchmark = matches!(config.task, Task::Benchmark(_));
    let takes_checkpoint = is_benchmark || matches!(config.task, Task::Dataset(_));
    match (&config.model, &config.sft, &config.checkpoint) {
        (None, None, Some(checkpoint)) if takes_checkpoint => {
            family::shape("checkpoint.shape", &(&checkpoint.shape).into())?;
            context(config, &checkpoint.shape)?;
            Ok(Base::Checkpoint(checkpoint.clone()))
        }
        (None, None, Some(_)) => Err(setting("checkpoint", "given").refused(
            "expected [model] and [sft]: this task's prompts are spelt by its own tokenizer",
        )),
        (_, _, Some(_)) => Err(setting("checkpoint", "beside [model] or [sft]")
            .refused("expected either [checkpoint], or [model] and [sft]")),
        (_, _, None) if is_benchmark => Err(setting("checkpoint", "left out")
            .refused("expected a checkpoint: the problems of [task.benchmark] are in words")),
        (Some(shape), Some(fine_tuning), None) => {
            model(shape)?;
            sft(fine_tuning)?;
            learns_from(&config.task, fine_tuning)?;
            Ok(Base::Scratch(shape.clone(), fine_tuning.clone()))
        }
        (None, _, None) => {
            Err(setting("model", "left out").refused("expected the section [model]"))
        }
        (_, None, None) => Err(setting("sft", "left out").refused("expected the section [sft]")),
    }
}

/// Checks that fine-tuning has answers to learn from. A dataset's rows have right answers only, so none is noisy.
fn learns_from(task: &Task, sft: &SftConfig) -> Result<(), RunError> {
    let Task::Dataset(task) = task else { return Ok(()) };
    setting("task.dataset.answer", "left out").ensure(
        task.answer.is_some(),
        "expected a template: [sft] learns from answers; a [checkpoint] needs none",
    )?;
    setting("sft.careless_steps", sft.noisy_steps)
        .ensure(sft.noisy_steps == 0, "expected 0: a dataset has no wrong answers to learn from")
}

/// Checks that the longest prompt and its completion fit the model's longest sequence.
fn context(config: &RunConfig, shape: &CheckpointShape) -> Result<(), RunError> {
    let (key, prompt_tokens) = match &config.task {
        Task::Benchmark(task) => ("task.benchmark.prompt_tokens", task.prompt_tokens),
        Task::Dataset(task) => ("task.dataset.prompt_tokens", task.prompt_tokens),
        Task::Countdown(_) | Task::Sudoku(_) => return Ok(()),
    };
    let tokens = config.rollout.completion_tokens.max(config.longest_evaluation());
    let most = shape.max_sequence_length;
    setting(key, prompt_tokens).ensure(
        prompt_tokens.saturating_add(tokens) <= most,
        format!(
            "expected at most {}: with completions of {tokens} tokens \
             the model's context of {most} is full",
            most.saturating_sub(tokens)
        ),
    )
}

fn model(model: &ModelShape) -> Result<(), RunError> {
    within("model.d_model", model.d_model, 4..=65_536)?;
    within("model.n_layers", model.n_layers, 1..=512)?;
    within("model.mlp_hidden_size", model.mlp_hidden_size, 1..=1_048_576)?;
    family::shape("model", &model.into())?;
    positive("model.rope_theta", model.rope_theta)?;
    positive("model.rms_norm_eps", model.rms_norm_eps)?;
    positive("model.init_std", model.init_std)
}

fn sft(sft: &SftConfig) -> Result<(), RunError> {
    within("sft.steps", sft.steps, 1..=10_000_000)?;
    within("sft.batch", sft.batch, 1..=1_048_576)?;
    within("sft.steps_per_stage", sft.steps_per_stage, 1..=sft.steps)?;
    setting("sft.micro_batch", sft.micro_batch).ensure(
        sft.micro_batch >= 1 && sft.batch.is_multiple_of(sft.micro_batch),
        format!("expected a divisor of sft.batch = {}", sft.batch),
    )?;
    within("sft.careless_steps", sft.noisy_steps, 0..=sft.steps)?;
    share("sft.careless_share", sft.noisy_share)?;
    optimizer("sft.optimizer", &sft.optimizer)
}

/// Checks the section of that name, `[optimizer]` or `[sft.optimizer]`.
pub(super) fn optimizer(section: &str, optimizer: &OptimizerConfig) -> Result<(), RunError> {
    let key = |name: &str| format!("{section}.{name}");
    positive(key("learning_rate"), optimizer.learning_rate)?;
    below_one(key("beta1"), optimizer.beta1)?;
    below_one(key("beta2"), optimizer.beta2)?;
    positive(key("eps"), optimizer.eps)?;
    not_negative(key("weight_decay"), optimizer.weight_decay)?;
    positive(key("max_grad_norm"), optimizer.max_grad_norm)?;
    share(key("final_ratio"), optimizer.final_ratio)
}
