//! Computes a run on this machine and shows its progress.
//!
//! For the verbs that compute whole runs. Reports no result: that is up to the verb.

use agrpo_fleet::local::{Local, Outcome};
use agrpo_spec::Run;
use agrpo_store::{JobsError, Store};
use tokio::sync::{mpsc, watch};

use crate::device::ComputeDevice;
use crate::machine;
use crate::progress::Progress;
use crate::run_summary::RunSummary;
use crate::telemetry;

/// Printed when a signal stops a run.
pub(super) const STOPPING: &str =
    "finishing the stages in hand; run the same command again to go on";

/// A local scheduler at a store; by default with as many workers as the machine has cores.
pub(super) fn local(store: &Store, device: &ComputeDevice, workers: Option<u16>) -> Local {
    Local {
        store: store.clone(),
        execute: device.execute(),
        workers: device.workers(workers),
        environment: device.environment(),
        clock: machine::clock(),
        log_tail: telemetry::log_tail(),
    }
}

/// Computes what the run lacks, or with `repair` all of it that is missing or damaged; `summary` holds what is known
/// of earlier processes.
pub(super) async fn compute(
    store: &Store,
    run: &Run,
    device: &ComputeDevice,
    (workers, repair): (Option<u16>, bool),
    stop: watch::Receiver<bool>,
    summary: RunSummary,
) -> (Result<Outcome, JobsError>, RunSummary) {
    let (events, mut happened) = mpsc::unbounded_channel();
    let local = local(store, device, workers);
    let work = async {
        match repair {
            true => local.repair(run.clone(), events, stop).await,
            false => local.run(run.clone(), events, stop).await,
        }
    };
    let mut progress = Progress::new(run, summary);
    let show = async {
        while let Some(event) = happened.recv().await {
            progress.handle(&event);
        }
    };
    let (outcome, ()) = tokio::join!(work, show);
    (outcome, progress.finish())
}
