//! `agrpo evaluate`: measures a run's base and newest policy on a grid of unmask steps. One evaluation for each policy
//! and number of steps, in one stage or in shards, computed through the store like any other stage, though no run waits for it. Trains
//! nothing and writes nothing into the run's own index; refuses steps, problems and samplers that the run's task does
//! not allow. What the results add up to is in `report.rs`.

mod report;

use agrpo_compute::tasks::{TaskError, check_task};
use agrpo_fleet::batch::Settled;
use agrpo_spec::{
    Appended, Base, EvaluationSpec, ProblemShard, Real, Run, RunId, Sampler, StageKind, StageSpec,
    allows_steps,
};
use tokio::sync::mpsc;

use self::report::{Cell, Report};
use super::computing::{find_device, local, retrying};
use super::files::{SVG, try_chart, write_and_report};
use super::prelude::{ComputeDevice, Exit, Failure, Result, Session, Store, output};
use super::resolve::{Policy, of_run};
use super::run_file::check_run;
use crate::args::{EvaluateArgs, RETRY_SECONDS};
use crate::signals::stop_signal;

pub(super) fn evaluate(args: &EvaluateArgs, session: &Session) -> Result<Exit> {
    try_chart(args.plot.as_deref())?;
    let (run, policies) = session.block_on(of_run(&args.run, session))?;
    let is_read = matches!(run.base(), Base::Checkpoint(_)) || !run.config().material().is_empty();
    if let (true, Some(problems)) = (is_read, args.problems) {
        check_run(&run, problems, session)?;
    }
    let cells = grid(&run, &policies, args)?;
    let device = find_device(&args.compute, &session.settings)?;
    device.enter(&session.settings, run.config().numerics, None)?;
    if let [_] = policies.as_slice() {
        output::talk("no update is done yet: only the base is evaluated");
    }
    let report = session.on_store(async |store| {
        let settled = compute(&store, run.id(), &device, &cells, args).await?;
        Report::read(&store, &run, cells, settled).await
    })?;
    output::answer(args.answer.json, &report, || report.describe())?;
    if let Some(place) = &args.plot {
        write_and_report(place, &SVG, &report.chart()?)?;
    }
    Ok(Exit::Done)
}

/// The records of every cell's stages, in their order.
async fn compute(
    store: &Store,
    run: RunId,
    device: &ComputeDevice,
    cells: &[Cell],
    args: &EvaluateArgs,
) -> Result<Vec<Settled>> {
    let stop = stop_signal(|| output::talk("finishing the evaluations in hand"))?;
    let (settled, mut events) = mpsc::unbounded_channel();
    let stages = cells.iter().flat_map(|cell| cell.stages.iter().map(move |spec| (cell, spec)));
    let stages: Vec<_> = stages.collect();
    let specs = stages.iter().map(|(_, spec)| StageSpec::Evaluation((*spec).clone())).collect();
    let store = retrying(store, RETRY_SECONDS, &stop);
    let local = local(&store, device, args.compute.workers);
    let work = local.batch(run, specs, settled, stop);
    let show = async {
        let mut done = 0;
        while let Some(one) = events.recv().await {
            done += 1;
            let ((cell, spec), all) = (stages[one.index], stages.len());
            let steps = output::count(cell.sampler.steps.into(), "step");
            let policy = output::policy(cell.policy.iteration);
            let share = one.manifest.metrics.get(agrpo_spec::metrics::ACCURACY);
            let share = share.map(|share| output::percent(*share)).unwrap_or_default();
            let problems = spec.shard.0.map(|ProblemShard { first_problem: first, .. }| {
                format!(" of problems {} to {}", first + 1, first + spec.problems)
            });
            let problems = problems.unwrap_or_default();
            let stored = if one.reused { " (stored)" } else { "" };
            output::talk(format!(
                "evaluation {done}/{all}  {policy}, {steps}  accuracy{problems} {share}{stored}"
            ));
        }
    };
    let (settled, ()) = tokio::join!(work, show);
    let settled: Vec<_> = settled?.into_iter().flatten().collect();
    if settled.len() < stages.len() {
        let all = output::count(stages.len() as u64, "evaluation");
        let why = format!("stopped after {} of {all}", settled.len());
        let hint = "the same command goes on: what is done is stored";
        return Err(Failure::new(Exit::Interrupted, why).hint(hint));
    }
    Ok(settled)
}

/// What is to be computed: policy by policy, from many steps to few.
fn grid(run: &Run, policies: &[Policy], args: &EvaluateArgs) -> Result<Vec<Cell>> {
    let config = run.config();
    let problems = args.problems.unwrap_or(config.evaluation.problems);
    check_task(&config.task, problems).map_err(|error| match error {
        TaskError::HeldOut { found, wanted, .. } => Failure::usage(format!(
            "--problems {wanted}: the run's task has {found} held-out problems; expected at most that many"
        )),
        error @ TaskError::None { .. } => Failure::refused(error),
    })?;
    let shards = shards(run, problems, args)?;
    let rollout = &config.rollout;
    let (top_k, top_p) = match args.temperature {
        Some(_) => (rollout.top_k, rollout.top_p),
        None => (0, Real::new(1.0).expect("one is finite")),
    };
    let mut cells = vec![];
    for &policy in policies {
        for steps in steps(run, args)? {
            let own = config.evaluation_sampler(steps);
            let position = args.position.unwrap_or(own.position);
            let sampler = Sampler {
                temperature: args.temperature.unwrap_or(own.temperature),
                top_k,
                top_p,
                position,
                confidence: config.evaluation_confidence(position),
                cache: args.cache.unwrap_or(own.cache),
                threshold: args.threshold.or(own.threshold),
                ..own
            };
            let sampler = sampler.normalised();
            sampler.check("evaluation").map_err(Failure::refused)?;
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
            cells.push(Cell { policy, sampler, problems, stages });
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

fn steps(run: &Run, args: &EvaluateArgs) -> Result<Vec<u32>> {
    let config = run.config();
    let (tokens, block) = (config.evaluation_completion_tokens(), config.evaluation_block_tokens());
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
