//! A run computed on this machine, shown as it goes.
//!
//! For the verbs that compute whole runs. What comes of it is theirs to tell.

use agrpo_jobs::embedded::{Local, Outcome};
use agrpo_jobs::{JobsError, Store};
use agrpo_spec::Run;
use tokio::sync::{mpsc, watch};

use crate::machine;
use crate::place::Place;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::telemetry;

/// What ends a run early.
pub(super) const STOPPING: &str =
    "finishing the stages in hand; run the same command again to go on";

/// This process at a store; by default with as many workers as the machine has room for.
pub(super) fn local(store: &Store, place: &Place, workers: Option<u16>) -> Local {
    Local {
        store: store.clone(),
        execute: place.execute(),
        workers: place.workers(workers),
        environment: place.environment(),
        clock: machine::clock(),
        log_tail: telemetry::log_tail(),
    }
}

/// Computes what the run lacks, or with `repair` all that is missing or damaged of it; `tally` is what is known of
/// earlier sessions.
pub(super) async fn compute(
    store: &Store,
    run: &Run,
    place: &Place,
    (workers, repair): (Option<u16>, bool),
    stop: watch::Receiver<bool>,
    tally: Tally,
) -> (Result<Outcome, JobsError>, Tally) {
    let (events, mut happened) = mpsc::unbounded_channel();
    let local = local(store, place, workers);
    let work = async {
        match repair {
            true => local.repair(run.clone(), events, stop).await,
            false => local.run(run.clone(), events, stop).await,
        }
    };
    let mut progress = Progress::new(run, tally);
    let show = async {
        while let Some(event) = happened.recv().await {
            progress.handle(&event);
        }
    };
    let (outcome, ()) = tokio::join!(work, show);
    (outcome, progress.finish())
}
