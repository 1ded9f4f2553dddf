//! A run held back, let go, or tried again, from anywhere.
//!
//! The store's record comes first and is the truth: runs in one process obey it, and whoever looks
//! after a fleet restores from it what Redis forgets. Redis is told so that workers obey at once.
//! Nothing here waits for a stage in hand to end.

use agrpo_spec::{RunId, StageDigest};

use crate::error::JobsError;
use crate::lease::stages;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::redis::Fleet;
use crate::redis::keys::HELD;
use crate::store::{Control, Store};
use crate::versions::Versions;
use crate::worker::{View, attempts, offer as offer_pending, set_active};

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
        Some(fleet) => tell(fleet, run, Some(control)).await,
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
        tell(fleet, run, None).await?;
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

/// Tells workers.
pub(crate) async fn tell(
    fleet: &Fleet,
    run: RunId,
    control: Option<&Control>,
) -> Result<(), JobsError> {
    let run = run.to_string();
    let mut command = match control {
        Some(_) => redis::cmd("HSET"),
        None => redis::cmd("HDEL"),
    };
    command.arg(fleet.keys.of(HELD)).arg(run);
    if let Some(control) = control {
        command.arg(control.state.to_string());
    }
    fleet.ask(&command).await
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
            return set_active(fleet, run, true).await.map(drop);
        }
        Err(error) => return Err(error),
    }
    let mut progress = Progress::open(store, store.run(run).await?).await?;
    progress.catch_up(store).await?;
    let view = View::of(&progress);
    stages::awaken(fleet).await?;
    set_active(fleet, run, !view.is_done()).await?;
    let queue = Queue::new(fleet, view.numerics, &own);
    offer_pending(store, &queue, run, &view.pending).await.map(drop)
}
