//! Checks a run file, section by section. Each error names the key, the value and what would be accepted.
//! Nothing is repaired silently.

use super::base::Base;
use super::compatibility::SamplerKeys;
use super::config::RunConfig;
use super::error::RunError;
use super::lora::LoraConfig;
use super::rollout::allows_steps;
use super::sampler::Sampler;
use super::task::{CountdownTask, Task};
use crate::digest::Real;

mod base;
mod expect;
mod optimizer;
mod reward;

use expect::{ensure, positive, share, within};
use optimizer::{OPTIMIZER_KEYS, optimizer};

/// Names that a new run may not have: records keep those that they were made with.
pub(super) fn name(name: &str) -> Result<(), RunError> {
    let is_option = name.starts_with('-');
    let is_folder = !name.is_empty() && name.chars().all(|c| c == '.');
    ensure(
        !is_option && !is_folder,
        "name",
        format!("{name:?}"),
        "expected a name that does not begin with '-' and is not made of dots alone",
    )
}

/// Every check, in the order of the file; the first that fails is reported. Answers with the base.
pub(super) fn check(config: &RunConfig) -> Result<Base, RunError> {
    let name_ok = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure(
        (1..=64).contains(&config.name.len()) && config.name.chars().all(name_ok),
        "name",
        format!("{:?}", config.name),
        "expected 1 to 64 letters, digits, '-', '_' or '.'",
    )?;
    // TOML's integers end at 2^63 - 1; so do ours, in every format.
    ensure(i64::try_from(config.seed).is_ok(), "seed", config.seed, "expected at most 2^63 - 1")?;
    task(&config.task)?;
    let base = base::base(config)?;
    rollout(config)?;
    reward::reward(config)?;
    estimator(config)?;
    optimizer(&config.optimizer, OPTIMIZER_KEYS)?;
    config.lora.as_ref().map_or(Ok(()), lora)?;
    within("training.iterations", config.training.iterations, 1..=1_000_000)?;
    evaluation(config)?;
    Ok(base)
}

fn task(task: &Task) -> Result<(), RunError> {
    match task {
        Task::Countdown(task) => {
            within("task.countdown.numbers", task.numbers, 2..=6)?;
            within("task.countdown.max_number", task.max_number, 2..=99)?;
            within("task.countdown.max_target", task.max_target, 1..=999)?;
            let longest = longest_countdown_prompt(task);
            ensure(
                task.prompt_tokens >= longest && task.prompt_tokens <= 64,
                "task.countdown.prompt_tokens",
                task.prompt_tokens,
                format!(
                    "expected {longest} to 64: the longest prompt of these numbers has {longest} characters"
                ),
            )?;
            held_out("task.countdown.held_out", task.held_out)
        }
        Task::Sudoku(task) => {
            within("task.sudoku.blanks", task.blanks, 1..=12)?;
            held_out("task.sudoku.held_out", task.held_out)
        }
        Task::Benchmark(task) => {
            within("task.benchmark.prompt_tokens", task.prompt_tokens, 1..=65_536)
        }
        Task::Dataset(task) => {
            ensure(
                !task.prompt.is_empty(),
                "task.dataset.prompt",
                "\"\"",
                "expected a template of what is asked, such as \"{{ question }}\"",
            )?;
            within("task.dataset.prompt_tokens", task.prompt_tokens, 1..=65_536)
        }
    }
}

fn held_out(key: &'static str, value: Real) -> Result<(), RunError> {
    ensure((0.01..=0.9).contains(&value.get()), key, value, "expected a share from 0.01 to 0.9")
}

/// `9,9,9:99`: the numbers, a comma between them, a colon, the target.
fn longest_countdown_prompt(task: &CountdownTask) -> u32 {
    let digits = |n: u32| n.ilog10() + 1;
    task.numbers * (digits(task.max_number) + 1) + digits(task.max_target)
}

fn rollout(config: &RunConfig) -> Result<(), RunError> {
    let rollout = &config.rollout;
    within("rollout.prompts", rollout.prompts, 1..=1_048_576)?;
    ensure(
        (2..=4096).contains(&rollout.group),
        "rollout.group",
        rollout.group,
        "expected 2 to 4096 completions a prompt: a group of one has no spread, so nothing is learned",
    )?;
    ensure(
        rollout.shards >= 1 && rollout.prompts.is_multiple_of(rollout.shards),
        "rollout.shards",
        rollout.shards,
        format!("expected a divisor of rollout.prompts = {}", rollout.prompts),
    )?;
    within("rollout.micro_batch", rollout.micro_batch, 1..=65_536)?;
    within("rollout.completion_tokens", rollout.completion_tokens, 1..=65_536)?;
    let shortest = match &config.task {
        // All numbers, an operator between each two, and a bracket pair for all but two of them.
        Task::Countdown(task) => {
            task.numbers * (task.max_number.ilog10() + 1)
                + (task.numbers - 1)
                + 2 * (task.numbers - 2)
        }
        Task::Sudoku(_) => 16,
        Task::Benchmark(_) | Task::Dataset(_) => 1,
    };
    ensure(
        rollout.completion_tokens >= shortest,
        "rollout.completion_tokens",
        rollout.completion_tokens,
        format!("expected at least {shortest}, the length of the longest answer"),
    )?;
    let (tokens, block) = (rollout.completion_tokens, rollout.block_tokens);
    ROLLOUT_KEYS.block_tokens(tokens, block)?;
    ROLLOUT_KEYS.steps(tokens, block, rollout.steps)?;
    ensure(
        rollout.top_p.get() > 0.0 && rollout.top_p.get() <= 1.0,
        "rollout.top_p",
        rollout.top_p,
        "expected a number above 0 and up to 1 (1 keeps every token)",
    )
}

/// Keys that say how completions are cut into blocks and steps, so that errors name those of the file.
#[derive(Clone, Copy)]
struct BlockKeys {
    completion_tokens: &'static str,
    block_tokens: &'static str,
    steps: &'static str,
}

const ROLLOUT_KEYS: BlockKeys = BlockKeys {
    completion_tokens: "rollout.completion_tokens",
    block_tokens: "rollout.block_tokens",
    steps: "rollout.steps",
};

impl BlockKeys {
    fn block_tokens(self, tokens: u32, block_tokens: u32) -> Result<(), RunError> {
        ensure(
            block_tokens >= 1 && tokens.is_multiple_of(block_tokens),
            self.block_tokens,
            block_tokens,
            format!("expected a divisor of {} = {tokens}", self.completion_tokens),
        )
    }

    fn steps(self, tokens: u32, block_tokens: u32, steps: u32) -> Result<(), RunError> {
        let (blocks, key) = (tokens / block_tokens, self.completion_tokens);
        ensure(
            allows_steps(tokens, block_tokens, steps),
            self.steps,
            steps,
            format!("expected a multiple of the {blocks} block(s) that divides {key} = {tokens}"),
        )
    }
}

fn estimator(config: &RunConfig) -> Result<(), RunError> {
    let estimator = &config.estimator;
    estimator.fits(&Sampler::from(&config.rollout))?;
    ensure(
        (0.0..1.0).contains(&estimator.clip_low.get()) && estimator.clip_low.get() > 0.0,
        "estimator.clip_low",
        estimator.clip_low,
        "expected a number above 0 and below 1",
    )?;
    positive("estimator.clip_high", estimator.clip_high)?;
    ensure(
        (0.0..=1.0).contains(&estimator.uniform_share.get()),
        "estimator.uniform_share",
        estimator.uniform_share,
        "expected a share from 0 to 1",
    )?;
    share("estimator.prompt_mask", estimator.prompt_mask)?;
    ensure(estimator.kl.get() >= 0.0, "estimator.kl", estimator.kl, "expected a number from 0")?;
    within("estimator.inner_updates", estimator.inner_updates, 1..=1024)?;
    within("estimator.micro_batch", estimator.micro_batch, 1..=65_536)
}

/// Every target is a module of a block, named once; something is adapted.
fn lora(lora: &LoraConfig) -> Result<(), RunError> {
    within("lora.rank", lora.rank, 1..=65_536)?;
    positive("lora.alpha", lora.alpha)?;
    let modules = LoraConfig::MODULES;
    for (n, target) in lora.targets.iter().enumerate() {
        let found = format!("{target:?}");
        ensure(modules.contains(&target.as_str()), "lora.targets", &found, {
            let all = modules.join(", ");
            format!("expected modules of a block: {all}; lora.head is for the head")
        })?;
        let is_new = !lora.targets[..n].contains(target);
        ensure(is_new, "lora.targets", &found, "expected every module once")?;
    }
    ensure(
        lora.head || !lora.targets.is_empty(),
        "lora.targets",
        "[]",
        "expected at least one module, or lora.head = true: nothing would be trained",
    )
}

fn evaluation(config: &RunConfig) -> Result<(), RunError> {
    let evaluation = &config.evaluation;
    within("evaluation.problems", evaluation.problems, 1..=1_048_576)?;
    within("evaluation.every", evaluation.every, 1..=1_000_000)?;
    within("evaluation.micro_batch", evaluation.micro_batch, 1..=65_536)?;
    ensure(
        evaluation.guidance.get() >= 0.0,
        "evaluation.guidance",
        evaluation.guidance,
        "expected a number of at least 0 (0 is no guidance)",
    )?;
    ensure(
        !evaluation.steps.is_empty(),
        "evaluation.steps",
        "[]",
        "expected at least one number of unmask steps, as in [8, 4]",
    )?;
    let (tokens, block) = (config.evaluation_completion_tokens(), config.evaluation_block_tokens());
    within("evaluation.completion_tokens", tokens, 1..=65_536)?;
    let keys = BlockKeys {
        completion_tokens: match evaluation.completion_tokens {
            Some(_) => "evaluation.completion_tokens",
            None => ROLLOUT_KEYS.completion_tokens,
        },
        block_tokens: "evaluation.block_tokens",
        steps: "evaluation.steps",
    };
    keys.block_tokens(tokens, block)?;
    for &count in &evaluation.steps {
        keys.steps(tokens, block, count)?;
        config.evaluation_sampler(count).fits(&SamplerKeys::EVALUATION)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::run::Run;

    #[test]
    fn a_name_is_no_option_no_folder_and_no_path() {
        let file = include_str!("../../../jobs/runs/smoke.toml");
        let named = |name: &str| {
            let name = toml::Value::from(name);
            Run::parse(&file.replace("name = \"smoke\"", &format!("name = {name}")))
        };
        let long = "a".repeat(65);
        for name in [
            "", ".", "..", "...", "-", "-rf", "--store", "a/b", "/", "a b", " a", "a ", " ",
            "a\nb", "a\0", "\u{1b}", "é", "a'b", "$a", "~", "*", &long,
        ] {
            let refused = named(name).unwrap_err().to_string();
            assert!(refused.starts_with("name = ") && !refused.contains('\n'), "{refused}");
        }
        for name in ["a", "0", "_", ".a", "a-", "a..b", &long[1..]] {
            assert!(named(name).is_ok(), "{name:?}");
        }
        // What was made under such a name can still be read.
        let mut config = named("a").unwrap().config().clone();
        config.name = "-rf".to_owned();
        assert!(Run::resolve(config).is_ok());
    }
}
