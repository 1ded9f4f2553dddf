//! Hands a run to the fleet: its record goes into the store, its first stages into the queue.
//!
//! Asking twice does no harm. Asking again for a run that failed gives its failed stages new
//! attempts, and for one that was cancelled lets it go on; one that is paused stays so.

use agrpo_spec::{Run, RunId};
use futures::{StreamExt, TryStreamExt};

use super::runs::{Pending, View};
use crate::coordination::leases::stages;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;
use crate::coordination::{attempts, runs};
use crate::planning::progress::Progress;
use agrpo_store::JobsError;
use agrpo_store::Versions;
use agrpo_store::{Hold, Store};

/// Specs written at the same time.
const WRITES: usize = 16;

/// A run that the fleet knows about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The run.
    pub run: RunId,
    /// Stages that can be computed now.
    pub pending: usize,
    /// Nothing is left to compute.
    pub already_done: bool,
    /// Other runs of the store that have the same name and another content.
    pub namesakes: Vec<RunId>,
}

/// Records the run and offers its pending stages to the workers of its class of numerics and of this
/// program's versions, which compute it from here on.
pub async fn enqueue(store: &Store, fleet: &Fleet, run: Run) -> Result<Enqueued, JobsError> {
    let id = run.id();
    store.put_run(&run).await?;
    let before = store.pin_versions(id).await?;
    let namesakes = store.namesakes(id, &run.config().name).await?;
    let mut progress = Progress::open(store, run).await?;
    progress.catch_up(store).await?;
    let view = View::of(&progress);
    for failure in store.failures(id).await? {
        store.clear_failure(id, failure.stage).await?;
        attempts::forget(fleet, failure.stage).await?;
    }
    if store.control(id).await?.is_some_and(|control| control.state == Hold::Cancelled) {
        store.clear_control(id).await?;
        runs::set_held(fleet, id, None).await?;
    }
    stages::awaken(fleet).await?;
    runs::set_active(fleet, id, !view.is_done()).await?;
    let queue = |versions: &Versions| Queue::new(fleet, view.numerics, versions);
    offer(store, &queue(&Versions::own()), id, &view.pending).await?;
    if let Some(before) = before {
        // Those that are tasks already are dropped by the workers that take them.
        queue(&before).withdraw(id).await?;
    }
    let (pending, already_done) = (view.pending.len(), view.is_done());
    Ok(Enqueued { run: id, pending, already_done, namesakes })
}

/// Writes the specs of stages, then their hints. Answers with how many hints were news.
pub(crate) async fn offer(
    store: &Store,
    queue: &Queue,
    run: RunId,
    stages: &[Pending],
) -> Result<usize, JobsError> {
    let writes: Vec<_> =
        stages.iter().map(|pending| store.put_spec(pending.stage, &pending.spec)).collect();
    futures::stream::iter(writes).buffer_unordered(WRITES).try_collect::<()>().await?;
    let hints: Vec<_> = stages.iter().map(|pending| (pending.key, pending.stage)).collect();
    queue.offer(run, hints).await
}
