//! What `agrpo evaluate` computes: every policy at every number of unmask steps or, with `--grid`, at every length and
//! number of steps. Refuses what the run's task, blocks and model do not allow, by the checks of a run file.

use agrpo_compute::tasks::{TaskError, check_task};
use agrpo_spec::{
    Appended, EvaluationSpec, GridCell, PositionRule, Real, RewardConfig, Run, Sampler, StageKind,
    Task, allows_steps,
};

use super::row::Cell;
use crate::args::EvaluateArgs;
use crate::commands::prelude::{Failure, Result, output};
use crate::commands::resolve::Policy;

/// The run with the protocol that is asked for; its id is another one then, and names nothing.
pub(super) fn with_protocol(run: &Run, args: &EvaluateArgs) -> Result<Run> {
    let Some(protocol) = args.protocol else { return Ok(run.clone()) };
    let mut config = run.config().clone();
    let Task::Benchmark(task) = &mut config.task else {
        return Err(Failure::usage(format!(
            "--protocol {protocol}: expected a run with [task.benchmark]; this run's task has one way of asking and grading"
        )));
    };
    if task.protocol != protocol {
        task.protocol = protocol;
        // Weights name parts of the run's own protocol, and no evaluation reads them.
        config.reward = RewardConfig::default();
    }
    Run::resolve(config).map_err(Failure::refused)
}

/// What is to be computed: policy by policy; steps from many to few, cells of a grid as they were given.
pub(super) fn cells(run: &Run, policies: &[Policy], args: &EvaluateArgs) -> Result<Vec<Cell>> {
    let config = run.config();
    let problems = args.problems.unwrap_or(config.evaluation.problems);
    check_task(&config.task, problems).map_err(|error| match error {
        TaskError::HeldOut { found, wanted, .. } => Failure::usage(format!(
            "--problems {wanted}: the run's task has {found} held-out problems; expected at most that many"
        )),
        error @ TaskError::None { .. } => Failure::refused(error),
    })?;
    let shards = shards(run, problems, args)?;
    let samplers = samplers(run, args)?;
    let mut cells = vec![];
    for &policy in policies {
        for sampler in &samplers {
            let spec = EvaluationSpec {
                version: StageKind::Evaluation.version(),
                numerics: config.numerics,
                seed: run.seed(),
                task: config.task.clone(),
                language: run.base().language(),
                policy: policy.artifact,
                precision: run.base().precision(),
                problems,
                samples: args.samples.unwrap_or(1),
                micro_batch: config.evaluation.micro_batch,
                samplers: vec![sampler.clone()],
                merge_adapter: config.merges_adapter(),
                grading: config.grading(),
                shard: Appended::default(),
            };
            let stages = match shards {
                1 => vec![spec],
                _ => (0..shards).filter_map(|number| spec.nth_shard(number, shards)).collect(),
            };
            cells.push(Cell { policy, sampler: sampler.clone(), problems, stages });
        }
    }
    Ok(cells)
}

/// Into how many stages an evaluation of so many problems is divided.
fn shards(run: &Run, problems: u32, args: &EvaluateArgs) -> Result<u32> {
    match args.shards {
        Some(shards) if shards > problems => {
            let problems = output::count(problems.into(), "problem");
            Err(Failure::usage(format!(
                "--shards {shards}: expected at most one for each of {problems}"
            )))
        }
        Some(shards) => Ok(shards),
        None => Ok(run.config().evaluation_shards().min(problems)),
    }
}

/// The sampler of each column, in order.
fn samplers(run: &Run, args: &EvaluateArgs) -> Result<Vec<Sampler>> {
    if args.grid.is_empty() {
        let steps = steps(run, args)?.into_iter();
        let tokens = run.config().evaluation_completion_tokens();
        let cell = |steps| GridCell { completion_tokens: tokens, steps };
        return steps
            .map(|steps| sampler(run, cell(steps), args).map_err(Failure::refused))
            .collect();
    }
    let mut all: Vec<Sampler> = vec![];
    for &cell in &args.grid {
        let sampler = sampler(run, cell, args)
            .map_err(|error| Failure::usage(format!("--grid {cell}: {error}")))?;
        if !all.contains(&sampler) {
            all.push(sampler);
        }
    }
    Ok(all)
}

/// The run's evaluation at this length and number of steps, with what the options change. Error as of a run file that
/// said so.
fn sampler(
    run: &Run,
    cell: GridCell,
    args: &EvaluateArgs,
) -> Result<Sampler, agrpo_spec::RunError> {
    let mut config = run.config().clone();
    let block = args.block_tokens.unwrap_or(config.evaluation_block_tokens());
    let own = &mut config.evaluation;
    (own.completion_tokens, own.block_tokens) = (Some(cell.completion_tokens), Some(block));
    (own.steps, own.grid) = (vec![cell.steps], Appended::default());
    own.position = args.position.unwrap_or(own.position);
    // The file's key is for its own order; no other compares confidences.
    own.confidence = own.confidence.filter(|_| own.position == PositionRule::LowConfidence);
    own.cache = args.cache.unwrap_or(own.cache);
    own.threshold = args.threshold.or(own.threshold);
    let run = Run::resolve(config)?;
    let rollout = &run.config().rollout;
    let (top_k, top_p) = match args.temperature {
        Some(_) => (rollout.top_k, rollout.top_p),
        None => (0, Real::new(1.0).expect("one is finite")),
    };
    let greedy = run.config().evaluation_sampler(cell.steps);
    let temperature = args.temperature.unwrap_or(greedy.temperature);
    let confidence = run.config().evaluation_confidence(greedy.position);
    let sampler = Sampler { temperature, top_k, top_p, confidence, ..greedy }.normalised();
    sampler.check("evaluation")?;
    Ok(sampler)
}

fn steps(run: &Run, args: &EvaluateArgs) -> Result<Vec<u32>> {
    let config = run.config();
    let tokens = config.evaluation_completion_tokens();
    let block = args.block_tokens.unwrap_or(config.evaluation_block_tokens());
    if !tokens.is_multiple_of(block) {
        return Err(Failure::usage(format!(
            "--block-tokens {block}: expected a divisor of the completion's {tokens} tokens"
        )));
    }
    let valid: Vec<u32> =
        (1..=tokens).rev().filter(|&steps| allows_steps(tokens, block, steps)).collect();
    if let Some(wrong) = args.steps.iter().find(|steps| !valid.contains(steps)) {
        let blocks = output::count((tokens / block).into(), "block");
        let valid = valid.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(Failure::usage(format!(
            "--steps {wrong}: the run's completions of {tokens} tokens in {blocks} can be unmasked in these numbers of steps: {valid}"
        )));
    }
    Ok(match args.steps.as_slice() {
        // As many as the tokens need, and no more than there are tokens.
        [] if args.threshold.or(config.evaluation.threshold).is_some() => vec![tokens],
        [] => valid,
        asked => valid.into_iter().filter(|steps| asked.contains(steps)).collect(),
    })
}
