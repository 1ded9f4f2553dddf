//! `agrpo evaluate`: measures a run's base and newest policy on a grid of unmask steps. One evaluation stage for each
//! policy and number of steps, computed through the store like any other stage, though no run waits for it. Trains
//! nothing and writes nothing into the run's own index. Which evaluations there are is in `grid.rs`, what their
//! results add up to in `report.rs`.

mod grid;
mod report;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{Base, RunId, StageSpec};
use tokio::sync::mpsc;

use self::grid::{Cell, grid};
use self::report::Report;
use super::computing::{local, retrying};
use super::files::{try_chart, write_and_report};
use super::prelude::{ComputeDevice, Exit, Failure, Session, Store, output};
use super::resolve::of_run;
use super::run_file::check_run;
use crate::args::{EvaluateArgs, RETRY_SECONDS};
use crate::signals::stop_signal;

pub(super) fn evaluate(args: &EvaluateArgs, session: &Session) -> Result<Exit, Failure> {
    try_chart(args.plot.as_deref())?;
    let (run, policies) = session.block_on(of_run(&args.run, session))?;
    let is_read = matches!(run.base(), Base::Checkpoint(_)) || !run.config().material().is_empty();
    if let (true, Some(problems)) = (is_read, args.problems) {
        check_run(&run, problems, session)?;
    }
    let cells = grid(&run, &policies, args)?;
    let device = ComputeDevice::find(args.compute.device.id, &session.settings)?;
    device.enter(&session.settings, run.config().numerics, None)?;
    if let [_] = policies.as_slice() {
        output::talk("no update is done yet: only the base is evaluated");
    }
    let report = session.block_on(async {
        let store = session.existing_store().await?;
        let settled = compute(&store, run.id(), &device, &cells, args).await?;
        Report::read(&store, &run, cells, settled).await
    })?;
    output::answer(args.json.json, &report, || report.describe())?;
    if let Some(place) = &args.plot {
        write_and_report(place, &report.chart()?)?;
    }
    Ok(Exit::Done)
}

/// The record of every cell, in their order.
async fn compute(
    store: &Store,
    run: RunId,
    device: &ComputeDevice,
    cells: &[Cell],
    args: &EvaluateArgs,
) -> Result<Vec<Settled>, Failure> {
    let stop = stop_signal(|| output::talk("finishing the evaluations in hand"))?;
    let (settled, mut events) = mpsc::unbounded_channel();
    let specs = cells.iter().map(|cell| StageSpec::Evaluation(cell.spec.clone())).collect();
    let store = retrying(store, RETRY_SECONDS, &stop);
    let local = local(&store, device, args.compute.workers);
    let work = local.batch(run, specs, settled, stop);
    let show = async {
        let mut done = 0;
        while let Some(one) = events.recv().await {
            done += 1;
            let (cell, all) = (&cells[one.index], cells.len());
            let (policy, steps) = (output::policy(cell.policy.iteration), cell.sampler.steps);
            let share = one.manifest.metrics.get("accuracy").map(|share| output::percent(*share));
            let share = share.unwrap_or_default();
            let stored = if one.reused { " (stored)" } else { "" };
            output::talk(format!(
                "evaluation {done}/{all}  {policy}, {steps} steps  accuracy {share}{stored}"
            ));
        }
    };
    let (settled, ()) = tokio::join!(work, show);
    let settled: Vec<_> = settled?.into_iter().flatten().collect();
    if settled.len() < cells.len() {
        let why = format!("stopped after {} of {} evaluations", settled.len(), cells.len());
        let hint = "the same command goes on: what is done is stored";
        return Err(Failure::new(Exit::Interrupted, why).hint(hint));
    }
    Ok(settled)
}
