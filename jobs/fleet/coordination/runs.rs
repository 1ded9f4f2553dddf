//! What Redis holds of runs: which of them the reconciler looks at, and which are paused or cancelled.
//!
//! A copy of what the store says, so that workers obey at once.

use crate::Result;
use agrpo_spec::RunId;
use agrpo_store::Hold;

use super::keys::{ACTIVE, HELD};
use super::redis::Fleet;

/// Notes whether the reconciler looks at the run; whether that is news.
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
