//! `agrpo evaluate`: measures policies of a run by unmask steps, or on a grid of lengths and steps. One evaluation for
//! each policy and sampler, in one stage or in shards, computed through the store like any other stage, though no run
//! waits for it. Trains nothing and writes nothing into the run's own index. What is computed, and what is refused, is
//! in `cells.rs`; what the results add up to in `report.rs`.

mod cells;
mod report;
mod row;
mod table;
mod trade;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{Base, GridCell, ProblemShard, RunId, StageSpec};
use tokio::sync::mpsc;

use self::cells::{cells, with_protocol};
use self::{report::Report, row::Cell};
use super::computing::{find_device, local, retrying};
use super::files::{SVG, try_chart, write_and_report};
use super::prelude::{ComputeDevice, Exit, Failure, Result, Session, Store, output};
use super::resolve::policies;
use super::run_file::check_run;
use crate::args::{EvaluateArgs, PolicyChoice, RETRY_SECONDS};
use crate::signals::stop_signal;

pub(super) fn evaluate(args: &EvaluateArgs, session: &Session) -> Result<Exit> {
    try_chart(args.plot.as_deref())?;
    if args.grid.is_empty() && args.iteration.contains(&PolicyChoice::Best) {
        return Err(Failure::usage(
            "--iteration best: expected --grid as well, each of whose columns has a best policy",
        ));
    }
    let ends = [PolicyChoice::Base, PolicyChoice::Latest];
    let chosen = if args.iteration.is_empty() { &ends[..] } else { &args.iteration };
    let (run, policies) = session.block_on(policies(&args.run, chosen, session))?;
    if policies.is_empty() {
        return Err(Failure::usage("--iteration best: no update is done yet; expected base"));
    }
    let measured = with_protocol(&run, args)?;
    let is_read = matches!(run.base(), Base::Checkpoint(_)) || !run.config().material().is_empty();
    if is_read && (args.problems.is_some() || args.protocol.is_some()) {
        let problems = args.problems.unwrap_or(run.config().evaluation.problems);
        check_run(&measured, problems, session)?;
    }
    let cells = cells(&measured, &policies, args)?;
    let device = find_device(&args.compute, &session.settings)?;
    device.enter(&session.settings, run.config().numerics, None)?;
    if let (true, [_]) = (args.iteration.is_empty(), policies.as_slice()) {
        output::talk("no update is done yet: only the base is evaluated");
    }
    let report = session.on_store(async |store| {
        let settled = compute(&store, run.id(), &device, &cells, args).await?;
        Report::read(&store, &measured, run.id(), (cells, settled), args).await
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
            let steps = match args.grid.as_slice() {
                [] => output::count(cell.sampler.steps.into(), "step"),
                _ => GridCell::from(&cell.sampler).to_string(),
            };
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
