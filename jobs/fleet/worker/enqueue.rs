//! Hands a run to the fleet: its record goes into the store, its first stages into the queue.
//!
//! Asking twice does no harm. Asking again for a run that failed gives its failed stages new
//! attempts, and resumes one that was cancelled; one that is paused stays so.

use agrpo_spec::{Run, RunId};
use agrpo_store::{Hold, Store, Versions};
use futures::{StreamExt, TryStreamExt};

use super::runs::View;
use crate::Result;
use crate::coordination::{Fleet, attempts, leases::stages, queue::Queue, runs};
use crate::planning::progress::Progress;

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
pub async fn enqueue(store: &Store, fleet: &Fleet, run: Run) -> Result<Enqueued> {
    let id = run.id();
    store.records.put_run(&run).await?;
    let before = store.records.pin_versions(id).await?;
    let namesakes = store.records.namesakes(id, &run.config().name).await?;
    let view = planned(store, run).await?;
    take_up(store, Some(fleet), id).await?;
    offer_view(store, fleet, id, &view).await?;
    if let Some(before) = before {
        // Those that are tasks already are dropped by the workers that take them.
        Queue::new(fleet, view.numerics, &before).withdraw(id).await?;
    }
    let (pending, already_done) = (view.pending.len(), view.is_done);
    Ok(Enqueued { run: id, pending, already_done, namesakes })
}

/// Forgets the failures of a run, and that it was cancelled, since a person asks for it again.
pub(crate) async fn take_up(store: &Store, fleet: Option<&Fleet>, run: RunId) -> Result<()> {
    let records = &store.records;
    for failure in records.failures(run).await? {
        records.clear_failure(run, failure.stage).await?;
        if let Some(fleet) = fleet {
            attempts::forget(fleet, failure.stage).await?;
        }
    }
    if records.control(run).await?.is_some_and(|control| control.state == Hold::Cancelled) {
        records.clear_control(run).await?;
        if let Some(fleet) = fleet {
            runs::set_held(fleet, run, None).await?;
        }
    }
    Ok(())
}

/// Offers what can be computed now of a run of this program's versions; the Redis may be new.
pub(crate) async fn offer_run(store: &Store, fleet: &Fleet, run: Run) -> Result<()> {
    let id = run.id();
    let view = planned(store, run).await?;
    offer_view(store, fleet, id, &view).await
}

/// Where a run of this program's versions stands.
async fn planned(store: &Store, run: Run) -> Result<View> {
    let mut progress = Progress::open(store, run).await?;
    progress.catch_up(store).await?;
    Ok(View::of(&progress))
}

async fn offer_view(store: &Store, fleet: &Fleet, run: RunId, view: &View) -> Result<()> {
    stages::awaken(fleet).await?;
    runs::set_active(fleet, run, !view.is_done).await?;
    let queue = Queue::new(fleet, view.numerics, &Versions::own());
    offer(store, &queue, run, view).await
}

/// Writes the specs of stages, then the base of their run, then their hints.
pub(super) async fn offer(store: &Store, queue: &Queue, run: RunId, view: &View) -> Result<()> {
    let pending = view.pending.iter();
    let writes: Vec<_> = pending.map(|one| store.records.put_spec(one.stage, &one.spec)).collect();
    futures::stream::iter(writes).buffer_unordered(WRITES).try_collect::<()>().await?;
    if let Some(base) = view.base.filter(|_| !view.pending.is_empty()) {
        queue.note_base(run, base).await?;
    }
    let hints: Vec<_> = view.pending.iter().map(|pending| (pending.key, pending.stage)).collect();
    queue.offer(run, hints).await.map(drop)
}
