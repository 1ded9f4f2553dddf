//! A run computed on this machine, shown as it goes.
//!
//! For the verbs that compute whole runs. What comes of it is theirs to tell.

use agrpo_jobs::embedded::{self, Outcome};
use agrpo_jobs::{JobsError, Store};
use agrpo_spec::Run;
use tokio::sync::{mpsc, watch};

use crate::machine;
use crate::place::Place;
use crate::progress::Progress;
use crate::tally::Tally;

/// What ends a run early.
pub(super) const STOPPING: &str =
    "finishing the stages in hand; run the same command again to go on";

/// Computes what the run lacks; `tally` is what is known of earlier sessions.
pub(super) async fn compute(
    store: &Store,
    run: &Run,
    place: &Place,
    workers: Option<u16>,
    stop: watch::Receiver<bool>,
    tally: Tally,
) -> (Result<Outcome, JobsError>, Tally) {
    let (events, mut happened) = mpsc::unbounded_channel();
    let (execute, workers) = (place.execute(), place.workers(workers));
    let (environment, clock) = (place.environment(), machine::clock());
    let work =
        embedded::run(store, run.clone(), execute, workers, environment, clock, events, stop);
    let mut progress = Progress::new(run, tally);
    let show = async {
        while let Some(event) = happened.recv().await {
            progress.handle(&event);
        }
    };
    let (outcome, ()) = tokio::join!(work, show);
    (outcome, progress.finish())
}
