//! Runs in Redis: those that the reconciler looks at, and those that are paused or cancelled.
//!
//! A copy of the store's records, so that workers obey at once.

use crate::Result;
use agrpo_spec::RunId;
use agrpo_store::Hold;

use super::keys::{ACTIVE, HELD};
use super::redis::Fleet;

/// Sets whether the reconciler looks at the run; returns whether that changed.
pub(crate) async fn set_active(fleet: &Fleet, run: RunId, active: bool) -> Result<bool> {
    let mut command = redis::cmd(if active { "SADD" } else { "SREM" });
    fleet.ask(command.arg(fleet.keys.of(ACTIVE)).arg(run.to_string())).await
}

/// Pauses or cancels a run for workers; `None` resumes it.
pub(crate) async fn set_held(fleet: &Fleet, run: RunId, hold: Option<Hold>) -> Result<()> {
    let run = run.to_string();
    let mut command = redis::cmd(if hold.is_some() { "HSET" } else { "HDEL" });
    command.arg(fleet.keys.of(HELD)).arg(run);
    if let Some(hold) = hold {
        command.arg(hold.to_string());
    }
    fleet.ask(&command).await
}
