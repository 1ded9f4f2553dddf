//! Pauses, resumes, cancels and retries runs.
//!
//! The store's record comes first and is the truth: runs in one process obey it, and the reconciler restores from it
//! what Redis forgets. Redis gets a copy so that workers obey at once. Nothing here waits for a stage in progress.

use agrpo_spec::{RunId, StageDigest};

use crate::coordination::leases::stages;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;
use crate::coordination::{attempts, runs};
use crate::planning::progress::Progress;
use crate::worker::{View, offer as offer_pending};
use agrpo_store::JobsError;
use agrpo_store::Versions;
use agrpo_store::{Control, Store};

/// Pauses or cancels a run: no stage of it is begun any more.
pub async fn hold(
    store: &Store,
    fleet: Option<&Fleet>,
    run: RunId,
    control: &Control,
) -> Result<(), JobsError> {
    store.run(run).await?;
    store.put_control(run, control).await?;
    match fleet {
        Some(fleet) => runs::set_held(fleet, run, Some(control)).await,
        None => Ok(()),
    }
}

/// Lets a run go on, whether it was paused or cancelled, and offers its stages again. False where it
/// was not held back.
pub async fn resume(store: &Store, fleet: Option<&Fleet>, run: RunId) -> Result<bool, JobsError> {
    store.run(run).await?;
    // A record that cannot be read is lifted like any other.
    let held = !matches!(store.control(run).await, Ok(None));
    store.clear_control(run).await?;
    if let Some(fleet) = fleet {
        runs::set_held(fleet, run, None).await?;
        if held {
            offer(store, fleet, run).await?;
        }
    }
    Ok(held)
}

/// Clears a run's failure records and gives its stages new attempts; which they were.
pub async fn retry(
    store: &Store,
    fleet: Option<&Fleet>,
    run: RunId,
) -> Result<Vec<StageDigest>, JobsError> {
    store.run(run).await?;
    let cleared = store.failed_stages(run).await?;
    for &stage in &cleared {
        store.clear_failure(run, stage).await?;
        if let Some(fleet) = fleet {
            attempts::forget(fleet, stage).await?;
        }
    }
    if let Some(fleet) = fleet
        && !cleared.is_empty()
    {
        offer(store, fleet, run).await?;
    }
    Ok(cleared)
}

/// Offers what can be computed now; for a run of other versions, which this program cannot plan, the next
/// sweep of its workers does.
async fn offer(store: &Store, fleet: &Fleet, run: RunId) -> Result<(), JobsError> {
    let own = Versions::own();
    match store.versions(run).await {
        Ok(pinned) if pinned == own => {}
        // A record that cannot be read is reported by the sweep.
        Ok(_) | Err(JobsError::Data(_) | JobsError::Incompatible(_)) => {
            stages::awaken(fleet).await?;
            return runs::set_active(fleet, run, true).await.map(drop);
        }
        Err(error) => return Err(error),
    }
    let mut progress = Progress::open(store, store.run(run).await?).await?;
    progress.catch_up(store).await?;
    let view = View::of(&progress);
    stages::awaken(fleet).await?;
    runs::set_active(fleet, run, !view.is_done()).await?;
    let queue = Queue::new(fleet, view.numerics, &own);
    offer_pending(store, &queue, run, &view.pending).await.map(drop)
}
