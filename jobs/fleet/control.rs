//! Pauses, resumes, cancels and retries runs.
//!
//! The store's record comes first and is the truth: runs in one process obey it, and the reconciler restores from it
//! what Redis forgets. Redis gets a copy so that workers obey at once. Nothing here waits for a stage in progress.

use agrpo_spec::{RunId, StageDigest};
use agrpo_store::{Control, JobsError, Store, Versions};

use crate::Result;
use crate::coordination::{Fleet, attempts, leases::stages, runs};
use crate::worker::offer_run;

/// Pauses or cancels a run: no stage of it is begun any more.
pub async fn hold(
    store: &Store,
    fleet: Option<&Fleet>,
    run: RunId,
    control: &Control,
) -> Result<()> {
    store.records.run(run).await?;
    store.records.put_control(run, control).await?;
    let Some(fleet) = fleet else { return Ok(()) };
    runs::set_held(fleet, run, Some(control.state)).await
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
    match store.records.versions(run).await {
        Ok(pinned) if pinned == Versions::own() => {}
        // A record that cannot be read is reported by the reconciler.
        Ok(_) | Err(JobsError::Data(_) | JobsError::Incompatible(_)) => {
            stages::awaken(fleet).await?;
            return runs::set_active(fleet, run, true).await.map(drop);
        }
        Err(error) => return Err(error),
    }
    offer_run(store, fleet, store.records.run(run).await?).await
}
