//! Pauses, resumes, cancels and retries runs.
//!
//! The store's record comes first and is the truth: runs in one process obey it, and the reconciler restores from it
//! what Redis forgets. Redis gets a copy so that workers obey at once. Nothing here waits for a stage in progress.

use agrpo_spec::{Plan, Run, RunId, StageDigest};
use agrpo_store::{Control, Store, Versions, readable};

use crate::Result;
use crate::coordination::{Fleet, attempts, leases::stages, runs};
use crate::status::{RunState, status};
use crate::worker::offer_run;

/// Pauses or cancels a run: no stage of it is begun any more. False, and nothing changes, where the run is done.
pub async fn hold(
    store: &Store,
    fleet: Option<&Fleet>,
    run: RunId,
    control: &Control,
) -> Result<bool> {
    let record = store.records.run(run).await?;
    // Damage is no reason not to stop a run.
    if readable(is_done(store, &record).await)?.unwrap_or(false) {
        return Ok(false);
    }
    store.records.put_control(run, control).await?;
    let Some(fleet) = fleet else { return Ok(true) };
    runs::set_held(fleet, run, Some(control.state)).await.map(|()| true)
}

/// Whether the run is done, as `agrpo status` shows it. One read while the last update is not noted, however long the
/// run.
async fn is_done(store: &Store, run: &Run) -> Result<bool> {
    let last = Plan::last_update(run, run.config().training.iterations);
    Ok(store.records.recorded_policy(run.id(), last).await?.is_some()
        && status(store, Some(run.id())).await?.iter().all(|row| row.state == RunState::Done))
}

/// Resumes a run, whether it was paused or cancelled, and offers its stages again. False where it was neither.
pub async fn resume(store: &Store, fleet: Option<&Fleet>, run: RunId) -> Result<bool> {
    store.records.run(run).await?;
    // A record that cannot be read is lifted like any other.
    let held = !matches!(store.records.control(run).await, Ok(None));
    store.records.clear_control(run).await?;
    if let Some(fleet) = fleet {
        runs::set_held(fleet, run, None).await?;
        if held {
            offer(store, fleet, run).await?;
        }
    }
    Ok(held)
}

/// Clears a run's failure records and gives its stages new attempts; which they were.
pub async fn retry(store: &Store, fleet: Option<&Fleet>, run: RunId) -> Result<Vec<StageDigest>> {
    store.records.run(run).await?;
    let cleared = store.records.failed_stages(run).await?;
    for &stage in &cleared {
        store.records.clear_failure(run, stage).await?;
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

/// Offers what can be computed now; for a run of other versions, which this program cannot plan, the
/// reconciler of its workers does.
async fn offer(store: &Store, fleet: &Fleet, run: RunId) -> Result<()> {
    // A record that cannot be read is reported by the reconciler.
    if readable(store.records.versions(run).await)?.is_ok_and(|pinned| pinned == Versions::own()) {
        return offer_run(store, fleet, store.records.run(run).await?).await;
    }
    stages::awaken(fleet).await?;
    runs::set_active(fleet, run, true).await.map(drop)
}
