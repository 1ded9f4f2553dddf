//! Computes a run on this machine and shows its progress. Reports no result: that is up to the verb.

use std::time::Duration;

use agrpo_fleet::local::{Local, Outcome};
use agrpo_spec::Run;
use agrpo_store::{JobsError, RetryPolicy};
use tokio::sync::{mpsc, watch};

use super::prelude::{ComputeDevice, Result, Serialize, Store, machine};
use crate::args::ComputeArgs;
use crate::{progress::Progress, run_summary::RunSummary, settings::Settings, telemetry};

/// Printed when a signal stops a run.
pub(super) const STOPPING: &str =
    "finishing the stages in hand; run the same command again to go on";

#[derive(Debug, Serialize)]
pub(super) struct Stages {
    pub(super) computed: u64,
    pub(super) reused: u64,
}

/// The store, retrying for so many seconds while its server is away, unless the command is stopped.
pub(super) fn retrying(store: &Store, seconds: u64, stop: &watch::Receiver<bool>) -> Store {
    let retry = RetryPolicy { limit: Duration::from_secs(seconds), stop: stop.clone() };
    store.with_limits(|limits| limits.retry = Some(retry))
}

pub(super) fn find_device(args: &ComputeArgs, settings: &Settings) -> Result<ComputeDevice> {
    ComputeDevice::find(args.device.id, args.threads.count, settings)
}

/// A local scheduler at a store; by default with as many workers as there are threads.
pub(super) fn local(store: &Store, device: &ComputeDevice, workers: Option<u16>) -> Local {
    let workers = device.workers(workers);
    Local {
        store: store.clone(),
        execute: device.execute(workers),
        workers,
        environment: device.environment(workers),
        clock: machine::clock(),
        log_tail: telemetry::log_tail(),
    }
}

/// Computes what the run lacks, or with `repair` what is missing or damaged; `summary` is of earlier processes.
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
    let work = local.run(run.clone(), repair, events, stop);
    let mut progress = Progress::new(run, summary);
    let show = async {
        while let Some(event) = happened.recv().await {
            progress.handle(&event);
        }
    };
    let (outcome, ()) = tokio::join!(work, show);
    (outcome, progress.finish())
}
