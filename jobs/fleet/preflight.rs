//! Checks whether a Redis can serve a fleet, before any work depends on it.
//!
//! Reads the server's `INFO`, checks the types of agrpo's keys, then runs every command and script once on keys of its
//! own (`trial.rs`). Changes no setting, and deletes every key that it writes. Compares clocks as well, with the limit
//! that workers have.

mod trial;

use agrpo_store::{Clock, Store};

use crate::Result;
pub use crate::coordination::heartbeat::Skew;
pub use crate::coordination::redis::diagnosis::Finding;
use crate::coordination::redis::{Fleet, diagnosis};

/// Runs every check; the first finding names the server, or says why it did not answer. `unique` is a name that no
/// other process uses.
pub async fn inspect(fleet: &Fleet, unique: &str) -> Vec<Finding> {
    let info = match fleet.ask::<String>(&redis::cmd("INFO")).await {
        Ok(info) => info,
        Err(error) => return vec![Finding::of(error)],
    };
    // A user without the right to CONFIG gets no answer; `INFO` alone is judged then.
    let mut save = redis::cmd("CONFIG");
    save.arg("GET").arg("save");
    let saves = save.query_async::<(String, String)>(&mut fleet.connection()).await;
    let mut findings =
        diagnosis::judge(fleet.address(), &info, saves.ok().map(|(_, points)| points));
    if findings.iter().any(|finding| finding.error.is_some()) {
        return findings;
    }
    let wrong = diagnosis::wrong_types(&fleet.keys, fleet.address(), &mut fleet.connection()).await;
    let error = match fleet.explained(wrong).await {
        Ok(None) => trial::trial(fleet, unique).await.err(),
        wrong => wrong.unwrap_or_else(Some),
    };
    findings.extend(error.map(Finding::of));
    findings
}

/// Fails unless a Redis can serve. Logs advice.
pub async fn require(fleet: &Fleet, unique: &str) -> Result<()> {
    for finding in inspect(fleet, unique).await {
        match finding.error {
            Some(error) => return Err(error),
            None if finding.advice.is_empty() => {}
            None => {
                tracing::info!(redis = fleet.address(), "{}; {}", finding.found, finding.advice);
            }
        }
    }
    Ok(())
}

/// Compares this machine's clock with that of Redis.
pub async fn clock_skew(fleet: &Fleet, clock: &Clock) -> Result<Skew> {
    let before = clock();
    let (seconds, micros): (u64, u64) = fleet.ask(&redis::cmd("TIME")).await?;
    Ok(Skew::between(before, seconds.saturating_mul(1000) + micros / 1000, clock(), 0))
}

/// Compares this machine's clock with the store's own, which dates its objects to the second.
pub async fn store_skew(store: &Store, clock: &Clock) -> Result<Skew> {
    let before = clock();
    let written = store.objects.now_ms().await?;
    Ok(Skew::between(before, u64::try_from(written).unwrap_or(0), clock(), 1000))
}

#[cfg(test)]
mod tests;
