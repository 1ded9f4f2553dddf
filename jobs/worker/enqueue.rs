//! Hands a run to the fleet: its record goes into the store, its first stages into the queue.
//!
//! Asking twice does no harm. Asking again for a run that failed gives its failed stages new
//! attempts.

use agrpo_spec::{Run, RunId};

use super::runs::View;
use super::{ACTIVE, attempts};
use crate::error::JobsError;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::redis::Fleet;
use crate::store::Store;

/// A run that the fleet knows about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The run.
    pub run: RunId,
    /// Stages that can be computed now.
    pub pending: usize,
    /// Nothing is left to compute.
    pub already_done: bool,
}

/// Records the run and offers its pending stages to the workers of its class of numerics.
pub async fn enqueue(store: &Store, fleet: &Fleet, run: Run) -> Result<Enqueued, JobsError> {
    let id = run.id();
    store.put_run(&run).await?;
    let mut progress = Progress::open(store, run).await?;
    progress.catch_up(store).await?;
    let view = View::of(&progress);
    for failure in store.failures(id).await? {
        store.clear_failure(id, failure.stage).await?;
        attempts::forget(fleet, failure.stage).await?;
    }
    set_active(fleet, id, !view.is_done()).await?;
    Queue::new(fleet, view.numerics).offer(id, view.stages()).await?;
    Ok(Enqueued { run: id, pending: view.pending.len(), already_done: view.is_done() })
}

/// Notes whether sweepers should look at the run.
pub(super) async fn set_active(fleet: &Fleet, run: RunId, active: bool) -> Result<(), JobsError> {
    redis::cmd(if active { "SADD" } else { "SREM" })
        .arg(ACTIVE)
        .arg(run.to_string())
        .query_async(&mut fleet.connection())
        .await
        .map_err(|error| fleet.failure(&error))
}
