//! Which evaluations a command line asks for: one for each policy and number of unmask steps. Computes nothing;
//! refuses steps, problems and samplers that the run's task does not allow.

use agrpo_compute::tasks::{TaskError, check_task};
use agrpo_spec::{EvaluationSpec, Real, Run, Sampler, StageKind, allows_steps};

use crate::args::EvaluateArgs;
use crate::commands::prelude::Failure;
use crate::commands::resolve::Policy;

/// One evaluation that is asked for.
pub(super) struct Cell {
    pub(super) policy: Policy,
    pub(super) sampler: Sampler,
    pub(super) spec: EvaluationSpec,
}

/// What is to be computed: policy by policy, from many steps to few.
pub(super) fn grid(
    run: &Run,
    policies: &[Policy],
    args: &EvaluateArgs,
) -> Result<Vec<Cell>, Failure> {
    let config = run.config();
    let problems = args.problems.unwrap_or(config.evaluation.problems);
    check_task(&config.task, problems).map_err(|error| match error {
        TaskError::HeldOut { found, wanted, .. } => Failure::usage(format!(
            "--problems {wanted}: the run's task has {found} held-out problems; expected at most that many"
        )),
        error @ TaskError::None { .. } => Failure::refused(error),
    })?;
    let rollout = &config.rollout;
    let (top_k, top_p) = match args.temperature {
        Some(_) => (rollout.top_k, rollout.top_p),
        None => (0, Real::new(1.0).expect("one is finite")),
    };
    let mut cells = vec![];
    for &policy in policies {
        for steps in steps(run, args)? {
            let own = config.evaluation_sampler(steps);
            let sampler = Sampler {
                temperature: args.temperature.unwrap_or(own.temperature),
                top_k,
                top_p,
                position: args.position.unwrap_or(own.position),
                cache: args.cache.unwrap_or(own.cache),
                threshold: args.threshold.or(own.threshold),
                ..own
            };
            sampler.fits("evaluation").map_err(Failure::refused)?;
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
                marking: config.marking(),
            };
            cells.push(Cell { policy, sampler, spec });
        }
    }
    Ok(cells)
}

/// The numbers of unmask steps, most first.
fn steps(run: &Run, args: &EvaluateArgs) -> Result<Vec<u32>, Failure> {
    let config = run.config();
    let (tokens, block) = (config.evaluation_completion_tokens(), config.evaluation_block_tokens());
    let valid: Vec<u32> =
        (1..=tokens).rev().filter(|&steps| allows_steps(tokens, block, steps)).collect();
    if let Some(wrong) = args.steps.iter().find(|steps| !valid.contains(steps)) {
        let blocks = tokens / block;
        let valid = valid.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(Failure::usage(format!(
            "--steps {wrong}: the run's completions of {tokens} tokens in {blocks} block(s) can be unmasked in these numbers of steps: {valid}"
        )));
    }
    Ok(match args.steps.as_slice() {
        // As many as the tokens need, and no more than there are tokens.
        [] if args.threshold.or(config.evaluation.threshold).is_some() => vec![tokens],
        [] => valid,
        asked => valid.into_iter().filter(|steps| asked.contains(steps)).collect(),
    })
}
