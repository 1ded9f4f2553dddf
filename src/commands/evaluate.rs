//! `agrpo evaluate`: a run's base and its newest policy, measured on a grid of unmask steps.
//!
//! One evaluation stage for each policy and number of steps, computed through the store like any other
//! stage, though no run waits for it. Trains nothing and notes nothing in the run's own index. What is
//! made of the results is in `report.rs`.

mod report;

use std::time::Duration;

use agrpo_jobs::Store;
use agrpo_jobs::batch::Settled;
use agrpo_spec::{
    Base, EvaluationSpec, Manifest, Real, Run, RunId, Sampler, SamplerKeys, StageKind, StageSpec,
    allows_steps,
};
use agrpo_stages::tasks::{TaskError, check_task};
use tokio::sync::mpsc;

use self::report::Report;
use crate::cli::{EvaluateArgs, PATIENCE};
use crate::commands::computing::local;
use crate::commands::policies::{Policy, policies};
use crate::commands::{block_on, chart, check_run, open_store, stop_signal};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::place::Place;
use crate::settings::Settings;
use crate::tally::percent;

/// One evaluation that is asked for.
struct Cell {
    policy: Policy,
    problems: u32,
    sampler: Sampler,
    spec: StageSpec,
}

/// Measures the run's policies.
pub(super) fn evaluate(args: &EvaluateArgs, settings: &Settings) -> Result<Exit, Failure> {
    let flag = args.store.store.as_deref();
    args.plot.as_deref().map_or(Ok(()), chart::check_place)?;
    let (run, policies) = block_on(async {
        let store = open_store(settings, flag).await?;
        let id = store.resolve_run(&args.run).await?;
        let run = store.run(id).await?;
        let policies = policies(&store, &run, flag).await?;
        Ok((run, policies))
    })?;
    let is_read = matches!(run.base(), Base::Checkpoint(_)) || !run.config().material().is_empty();
    if let (true, Some(problems)) = (is_read, args.problems) {
        check_run(&run, problems, settings, flag)?;
    }
    let cells = grid(&run, &policies, args)?;
    let place = Place::find(args.device.device, settings)?;
    place.enter(settings, run.config().numerics, None)?;
    if let [_] = policies.as_slice() {
        output::talk("no update is done yet: only the base is evaluated");
    }
    let report = block_on(async {
        let store = open_store(settings, flag).await?;
        let settled = compute(&store, run.id(), &place, &cells, args).await?;
        Report::read(&store, &run, cells, settled).await
    })?;
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(report.describe())?;
    }
    if let Some(place) = &args.plot {
        chart::write(place, &report.chart()?)?;
    }
    Ok(Exit::Done)
}

/// What is to be computed: policy by policy, from many steps to few.
fn grid(run: &Run, policies: &[Policy], args: &EvaluateArgs) -> Result<Vec<Cell>, Failure> {
    let config = run.config();
    let problems = args.problems.unwrap_or(config.evaluation.problems);
    check_task(&config.task, problems).map_err(|error| match error {
        TaskError::HeldOut { found, wanted, .. } => Failure::usage(format!(
            "--problems {wanted}: the run's task has {found} held-out problems; expected at most that many"
        )),
        error @ TaskError::None { .. } => Failure::usage(error.to_string()),
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
                position: args.position.map_or(own.position, |position| position.0),
                cache: args.cache.map_or(own.cache, |cache| cache.0),
                threshold: args.threshold.or(own.threshold),
                ..own
            };
            sampler
                .fits(&SamplerKeys::EVALUATION)
                .map_err(|misfit| Failure::usage(misfit.to_string()))?;
            let spec = StageSpec::Evaluation(EvaluationSpec {
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
            });
            cells.push(Cell { policy, problems, sampler, spec });
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

/// The record of every cell, in their order.
async fn compute(
    store: &Store,
    run: RunId,
    place: &Place,
    cells: &[Cell],
    args: &EvaluateArgs,
) -> Result<Vec<Settled>, Failure> {
    let stop = stop_signal(|| output::talk("finishing the evaluations in hand"))?;
    let (settled, mut heard) = mpsc::unbounded_channel();
    let specs = cells.iter().map(|cell| cell.spec.clone()).collect();
    let store = store.with_patience(Duration::from_secs(PATIENCE), stop.clone());
    let local = local(&store, place, args.workers);
    let work = local.batch(run, specs, settled, stop);
    let show = async {
        let mut done = 0;
        while let Some(one) = heard.recv().await {
            done += 1;
            output::talk(progress(&cells[one.index], &one, done, cells.len()));
        }
    };
    let (settled, ()) = tokio::join!(work, show);
    let settled: Vec<_> = settled?.into_iter().flatten().collect();
    if settled.len() < cells.len() {
        return Err(Failure::new(
            Exit::Interrupted,
            format!("stopped after {} of {} evaluations", settled.len(), cells.len()),
        )
        .hint("the same command goes on: what is done is stored"));
    }
    Ok(settled)
}

fn progress(cell: &Cell, one: &Settled, done: usize, all: usize) -> String {
    let share = accuracy(&one.manifest).map_or_else(String::new, percent);
    let stored = if one.reused { " (stored)" } else { "" };
    let (policy, steps) = (cell.policy.name(), cell.sampler.steps);
    format!("evaluation {done}/{all}  {policy}, {steps} steps  accuracy {share}{stored}")
}

fn accuracy(manifest: &Manifest) -> Option<f64> {
    manifest.metrics.get("accuracy").copied()
}
