//! Checks a run file, section by section. Each error names the key, the value and what would be accepted.
//! Nothing is repaired silently.

use super::error::{below_one, not_negative, positive, setting, share, within};
use super::{
    AdvantageScale, Base, GridCell, LoraConfig, Numerics, Precision, RunConfig, RunError, Sampler,
    Task, allows_steps,
};
use crate::digest::Real;
use crate::family::Family;

mod base;
mod family;
mod reward;

/// Refuses for new runs what existing records keep: names, numerics classes, and settings that do not compute what they
/// promise.
pub(super) fn new_run(config: &RunConfig) -> Result<(), RunError> {
    let RunConfig { name, numerics, advantage, rollout, checkpoint, .. } = config;
    let is_option = name.starts_with('-');
    let is_folder = !name.is_empty() && name.chars().all(|c| c == '.');
    setting("name", format!("{name:?}")).ensure(
        !is_option && !is_folder,
        "expected a name that does not begin with '-' and is not made of dots alone",
    )?;
    setting("numerics", format!("\"{numerics}\""))
        .ensure(numerics.is_computed(), Numerics::GONE)?;
    setting("advantage.scale", "\"batch-std\"").ensure(
        advantage.scale != AdvantageScale::BatchStd || rollout.shards == 1,
        format!(
            "expected \"none\", \"group-std\" or \"group-sample-std\", or rollout.shards = 1: it is \
             the deviation over a shard, so with rollout.shards = {} the objective would depend \
             on the division of the prompts",
            rollout.shards
        ),
    )?;
    let rounds = checkpoint.as_ref().is_some_and(|base| base.precision == Precision::Bf16);
    setting("lora.merge_for_sampling", true).ensure(
        !(config.merges_adapter() && rounds),
        "expected false, or checkpoint.precision = \"f32\": in bf16 the merged weights round \
         nearly all of the adapter away, so the policy that samples would be another one",
    )
}

/// Runs every check in the order of the file, and reports the first that fails. Returns the base.
pub(super) fn check(config: &RunConfig) -> Result<Base, RunError> {
    let name_ok = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    setting("name", format!("{:?}", config.name)).ensure(
        (1..=64).contains(&config.name.len()) && config.name.chars().all(name_ok),
        "expected 1 to 64 letters, digits, '-', '_' or '.'",
    )?;
    // TOML's integers end at 2^63 - 1; so do ours, in every format.
    setting("seed", config.seed)
        .ensure(i64::try_from(config.seed).is_ok(), "expected at most 2^63 - 1")?;
    task(&config.task)?;
    let base = base::base(config)?;
    family::blocks(config, &base)?;
    rollout(config)?;
    reward::reward(config)?;
    estimator(config)?;
    base::optimizer("optimizer", &config.optimizer)?;
    config.lora.as_ref().map_or(Ok(()), |section| lora(section, config.family()))?;
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
            // `9,9,9:99`: the numbers, a comma between them, a colon, the target.
            let digits = |n: u32| n.ilog10() + 1;
            let longest = task.numbers * (digits(task.max_number) + 1) + digits(task.max_target);
            setting("task.countdown.prompt_tokens", task.prompt_tokens).ensure(
                task.prompt_tokens >= longest && task.prompt_tokens <= 64,
                format!(
                    "expected {longest} to 64: the longest prompt of these numbers has \
                     {longest} characters"
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
            setting("task.dataset.prompt", "\"\"").ensure(
                !task.prompt.is_empty(),
                "expected a template of what is asked, such as \"{{ question }}\"",
            )?;
            within("task.dataset.prompt_tokens", task.prompt_tokens, 1..=65_536)
        }
    }
}

fn held_out(key: &str, value: Real) -> Result<(), RunError> {
    setting(key, value)
        .ensure((0.01..=0.9).contains(&value.get()), "expected a share from 0.01 to 0.9")
}

fn rollout(config: &RunConfig) -> Result<(), RunError> {
    let rollout = &config.rollout;
    within("rollout.prompts", rollout.prompts, 1..=1_048_576)?;
    setting("rollout.group", rollout.group).ensure(
        (2..=4096).contains(&rollout.group),
        "expected 2 to 4096 completions a prompt: \
         a group of one has no spread, so nothing is learned",
    )?;
    setting("rollout.shards", rollout.shards).ensure(
        rollout.shards >= 1 && rollout.prompts.is_multiple_of(rollout.shards),
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
    setting("rollout.completion_tokens", rollout.completion_tokens).ensure(
        rollout.completion_tokens >= shortest,
        format!("expected at least {shortest}, the length of the longest answer"),
    )?;
    let (tokens, block) = (rollout.completion_tokens, rollout.block_tokens);
    block_tokens("rollout", (ROLLOUT_TOKENS, tokens), block)?;
    steps("rollout", (ROLLOUT_TOKENS, tokens), block, rollout.steps)?;
    setting("rollout.top_p", rollout.top_p).ensure(
        rollout.top_p.get() > 0.0 && rollout.top_p.get() <= 1.0,
        "expected a number above 0 and up to 1 (1 keeps every token)",
    )
}

const ROLLOUT_TOKENS: &str = "rollout.completion_tokens";

/// Checks that this key's number of tokens is a multiple of the block.
fn block_tokens(section: &str, (key, tokens): (&str, u32), block: u32) -> Result<(), RunError> {
    setting(format!("{section}.block_tokens"), block).ensure(
        block >= 1 && tokens.is_multiple_of(block),
        format!("expected a divisor of {key} = {tokens}"),
    )
}

/// Checks that the steps divide evenly over the blocks, and a block's tokens over its steps.
fn steps(
    section: &str,
    (key, tokens): (&str, u32),
    block: u32,
    steps: u32,
) -> Result<(), RunError> {
    let blocks = tokens / block;
    setting(format!("{section}.steps"), steps).ensure(
        allows_steps(tokens, block, steps),
        format!("expected a multiple of the {blocks} block(s) that divides {key} = {tokens}"),
    )
}

fn estimator(config: &RunConfig) -> Result<(), RunError> {
    let estimator = &config.estimator;
    estimator.check_sampler(&Sampler::from(&config.rollout))?;
    setting("estimator.clip_low", estimator.clip_low).ensure(
        (0.0..1.0).contains(&estimator.clip_low.get()) && estimator.clip_low.get() > 0.0,
        "expected a number above 0 and below 1",
    )?;
    positive("estimator.clip_high", estimator.clip_high)?;
    share("estimator.uniform_share", estimator.uniform_share)?;
    below_one("estimator.prompt_mask", estimator.prompt_mask)?;
    not_negative("estimator.kl", estimator.kl)?;
    within("estimator.inner_updates", estimator.inner_updates, 1..=1024)?;
    let (parts, prompts) = (estimator.accumulation_steps, config.rollout.prompts);
    setting("estimator.accumulation_steps", parts).ensure(
        parts >= 1 && prompts.is_multiple_of(parts),
        format!("expected a divisor of rollout.prompts = {prompts}"),
    )?;
    within("estimator.micro_batch", estimator.micro_batch, 1..=65_536)
}

/// Checks that every target is a module of the family's blocks, named once, and that some module is adapted.
fn lora(lora: &LoraConfig, family: Family) -> Result<(), RunError> {
    within("lora.rank", lora.rank, 1..=65_536)?;
    positive("lora.alpha", lora.alpha)?;
    let (name, modules) = (family.traits().name, family.traits().tensors.targets());
    for (n, target) in lora.targets.iter().enumerate() {
        let found = format!("{target:?}");
        setting("lora.targets", &found).ensure(modules.contains(&target.as_str()), {
            let all = modules.join(", ");
            format!("expected modules of a block of {name}: {all}; lora.head is for the head")
        })?;
        let is_new = !lora.targets[..n].contains(target);
        setting("lora.targets", &found).ensure(is_new, "expected every module once")?;
    }
    setting("lora.targets", "[]").ensure(
        lora.head || !lora.targets.is_empty(),
        "expected at least one module, or lora.head = true: nothing would be trained",
    )
}

fn evaluation(config: &RunConfig) -> Result<(), RunError> {
    let evaluation = &config.evaluation;
    within("evaluation.problems", evaluation.problems, 1..=1_048_576)?;
    within("evaluation.shards", config.evaluation_shards(), 1..=evaluation.problems)?;
    within("evaluation.every", evaluation.every, 1..=1_000_000)?;
    within("evaluation.micro_batch", evaluation.micro_batch, 1..=65_536)?;
    setting("evaluation.guidance", evaluation.guidance).ensure(
        evaluation.guidance.get() >= 0.0,
        "expected a number of at least 0 (0 is no guidance)",
    )?;
    setting("evaluation.steps", "[]").ensure(
        !evaluation.steps.is_empty(),
        "expected at least one number of unmask steps, as in [8, 4]",
    )?;
    let (tokens, block) = (config.evaluation_completion_tokens(), config.evaluation_block_tokens());
    within("evaluation.completion_tokens", tokens, 1..=65_536)?;
    let tokens = match evaluation.completion_tokens {
        Some(_) => ("evaluation.completion_tokens", tokens),
        None => (ROLLOUT_TOKENS, tokens),
    };
    block_tokens("evaluation", tokens, block)?;
    for &count in &evaluation.steps {
        steps("evaluation", tokens, block, count)?;
        let confidence = config.evaluation_confidence(evaluation.position);
        Sampler { confidence, ..config.evaluation_sampler(count) }.check("evaluation")?;
    }
    grid(config)
}

/// Checks that every cell of the grid can be sampled in the evaluation's blocks, and is named once.
fn grid(config: &RunConfig) -> Result<(), RunError> {
    let block = config.evaluation_block_tokens();
    let cells = config.evaluation.grid.0.as_deref().unwrap_or_default();
    for (n, cell) in cells.iter().enumerate() {
        let found = || setting("evaluation.grid", format!("\"{cell}\""));
        let tokens = cell.completion_tokens;
        found().ensure(
            tokens <= 65_536 && tokens.is_multiple_of(block),
            format!("expected at most 65536 tokens, and a multiple of the block's {block}"),
        )?;
        let blocks = tokens / block;
        found().ensure(
            allows_steps(tokens, block, cell.steps),
            format!(
                "expected steps that are a multiple of the {blocks} block(s) and divide the {tokens} tokens"
            ),
        )?;
        found().ensure(!cells[..n].contains(cell), "expected every cell once")?;
    }
    let of_grid = |sampler: &&Sampler| cells.contains(&GridCell::from(*sampler));
    config.evaluation_samplers().iter().filter(of_grid).try_for_each(|sampler| {
        sampler.check("evaluation").map_err(|error| {
            let cell = format!("\"{}\"", GridCell::from(sampler));
            setting("evaluation.grid", cell).refused(error.to_string())
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::run::{Run, config::tests::words};

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
        // A record under such a name can still be read.
        let mut config = named("a").unwrap().config().clone();
        config.name = "-rf".to_owned();
        assert!(Run::resolve(config).is_ok());
    }

    /// What new runs are refused, records keep.
    #[test]
    fn settings_that_do_not_compute_what_they_promise_are_refused() {
        let refused = |text: &str| {
            // What is refused of a file is read from a record.
            let error = Run::parse(text).unwrap_err().to_string();
            assert!(Run::resolve(toml::from_str(text).unwrap()).is_ok(), "{error}");
            error
        };
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let over_shards = smoke.replace("scale = \"none\"", "scale = \"batch-std\"");
        insta::assert_snapshot!(refused(&over_shards), @r#"advantage.scale = "batch-std": expected "none", "group-std" or "group-sample-std", or rollout.shards = 1: it is the deviation over a shard, so with rollout.shards = 2 the objective would depend on the division of the prompts"#);
        assert!(Run::parse(&over_shards.replace("shards = 2 ", "shards = 1 ")).is_ok());
        let merged = words("agrpo", &[("lora", "merge_for_sampling = true")]);
        insta::assert_snapshot!(refused(&merged), @r#"lora.merge_for_sampling = true: expected false, or checkpoint.precision = "f32": in bf16 the merged weights round nearly all of the adapter away, so the policy that samples would be another one"#);
        let single = merged.replace("[checkpoint]\n", "[checkpoint]\nprecision = \"f32\"\n");
        assert!(Run::parse(&single).is_ok());
    }

    #[test]
    fn an_evaluation_has_no_more_shards_than_problems() {
        let refused = |shards: &str| {
            let smoke = include_str!("../../../jobs/runs/smoke.toml");
            let file =
                smoke.replace("problems = 500", &format!("shards = {shards}\nproblems = 500"));
            Run::parse(&file).err().map(|error| error.to_string()).unwrap_or_default()
        };
        insta::assert_snapshot!(refused("0"), @"evaluation.shards = 0: expected an integer from 1 to 500");
        insta::assert_snapshot!(refused("501"), @"evaluation.shards = 501: expected an integer from 1 to 500");
        for wrong in ["-1", "1.5", "\"three\"", "[3]"] {
            let refused = refused(wrong);
            assert!(refused.contains("expected a whole number from 0 to 4294967295"), "{refused}");
        }
        assert_eq!(refused("500"), "");
    }

    #[test]
    fn a_grid_is_further_samplers_and_its_cells_are_checked() {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let with = |grid: &str| {
            Run::parse(&smoke.replace("every = 5", &format!("grid = {grid}\nevery = 5")))
        };
        let refused = |grid: &str| with(grid).unwrap_err().to_string();
        insta::assert_snapshot!(refused("[\"12x4\"]"), @r#"evaluation.grid = "12x4": expected at most 65536 tokens, and a multiple of the block's 8"#);
        insta::assert_snapshot!(refused("[\"16x1\"]"), @r#"evaluation.grid = "16x1": expected steps that are a multiple of the 2 block(s) and divide the 16 tokens"#);
        insta::assert_snapshot!(refused("[\"16x8\", \"16\"]"), @r#"evaluation.grid = "16x8": expected every cell once"#);
        let wrong = refused("[\"16by8\"]");
        assert!(wrong.contains("\"16by8\": expected tokens and unmask steps"), "{wrong}");
        let plain = Run::parse(smoke).unwrap();
        assert_eq!(with("[]").unwrap().id(), plain.id(), "an empty grid is none");
        let run = with("[\"16x8\", \"8x8\", \"8x4\"]").unwrap();
        assert_ne!(run.id(), plain.id());
        let all = run.config().evaluation_samplers();
        let cells: Vec<_> = all.iter().map(|one| crate::GridCell::from(one).to_string()).collect();
        assert_eq!(cells, ["8x8", "16x8", "8x4"], "8x8 is among the steps");
        assert_eq!(run.config().longest_evaluation(), 16);
        let text = toml::to_string(run.config()).unwrap();
        assert!(text.contains("grid = [\"16x8\", \"8x8\", \"8x4\"]"), "{text}");
        assert_eq!(Run::parse(&text).unwrap().id(), run.id());
    }
}
