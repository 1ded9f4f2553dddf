//! `agrpo evaluate`: measures a run's base and newest policy on a grid of unmask steps.
//!
//! One evaluation stage for each policy and number of steps, computed through the store like any other
//! stage, though no run waits for it. Trains nothing and writes nothing into the run's own index. Which
//! evaluations there are is in `grid.rs`, what their results add up to in `report.rs`.

mod grid;
mod report;

use std::time::Duration;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{Base, Manifest, RunId};
use agrpo_store::Store;
use tokio::sync::mpsc;

use self::grid::{Cell, grid};
use self::report::Report;
use crate::args::{EvaluateArgs, PATIENCE};
use crate::commands::chart;
use crate::commands::computing::local;
use crate::commands::policies::policies;
use crate::commands::run_file::check_run;
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;
use crate::signals::stop_signal;

/// Measures the run's policies.
pub(super) fn evaluate(args: &EvaluateArgs, session: &Session) -> Result<Exit, Failure> {
    args.plot.as_deref().map_or(Ok(()), chart::check_writable)?;
    let (run, policies) = session.block_on(async {
        let store = session.existing_store().await?;
        let id = store.resolve_run(&args.run).await?;
        let run = store.run(id).await?;
        let policies = policies(&store, &run, session).await?;
        Ok((run, policies))
    })?;
    let is_read = matches!(run.base(), Base::Checkpoint(_)) || !run.config().material().is_empty();
    if let (true, Some(problems)) = (is_read, args.problems) {
        check_run(&run, problems, session)?;
    }
    let cells = grid(&run, &policies, args)?;
    let device = ComputeDevice::find(args.device.device, &session.settings)?;
    device.enter(&session.settings, run.config().numerics, None)?;
    if let [_] = policies.as_slice() {
        output::talk("no update is done yet: only the base is evaluated");
    }
    let report = session.block_on(async {
        let store = session.existing_store().await?;
        let settled = compute(&store, run.id(), &device, &cells, args).await?;
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

/// The record of every cell, in their order.
async fn compute(
    store: &Store,
    run: RunId,
    device: &ComputeDevice,
    cells: &[Cell],
    args: &EvaluateArgs,
) -> Result<Vec<Settled>, Failure> {
    let stop = stop_signal(|| output::talk("finishing the evaluations in hand"))?;
    let (settled, mut heard) = mpsc::unbounded_channel();
    let specs = cells.iter().map(|cell| cell.spec.clone()).collect();
    let store = store.with_retry_policy(Duration::from_secs(PATIENCE), stop.clone());
    let local = local(&store, device, args.workers);
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
    let share = accuracy(&one.manifest).map_or_else(String::new, output::percent);
    let stored = if one.reused { " (stored)" } else { "" };
    let (policy, steps) = (cell.policy.name(), cell.sampler.steps);
    format!("evaluation {done}/{all}  {policy}, {steps} steps  accuracy {share}{stored}")
}

fn accuracy(manifest: &Manifest) -> Option<f64> {
    manifest.metrics.get("accuracy").copied()
}
