//! Whether a Redis can serve a fleet, found out before anything depends on it.
//!
//! What it says of itself, the types of our keys, and a trial of every command and script under names of
//! its own. Changes no setting and leaves nothing behind. Clocks are compared here too; which difference is
//! too much is what workers refuse.

mod trial;

use agrpo_store::{Clock, Store};

use crate::Result;
pub use crate::coordination::heartbeat::Skew;
pub use crate::coordination::redis::diagnosis::Finding;
use crate::coordination::redis::{Fleet, diagnosis};

/// Looks at everything; the first finding says which Redis it is, or why it could not be asked. `unique` is a
/// name that no other process uses.
pub async fn inspect(fleet: &Fleet, unique: &str) -> Vec<Finding> {
    let info = match fleet.ask::<String>(&redis::cmd("INFO")).await {
        Ok(info) => info,
        Err(error) => return vec![Finding::of(error)],
    };
    // Who may not ask for it, may not; what the server says of itself is then all there is.
    let mut save = redis::cmd("CONFIG");
    save.arg("GET").arg("save");
    let saves = save.query_async::<(String, String)>(&mut fleet.connection()).await;
    let mut findings = diagnosis::judge(fleet.place(), &info, saves.ok().map(|(_, points)| points));
    if findings.iter().any(|finding| finding.error.is_some()) {
        return findings;
    }
    let wrong = diagnosis::wrong_types(&fleet.keys, fleet.place(), &mut fleet.connection()).await;
    let error = match fleet.explained(wrong).await {
        Ok(None) => trial::trial(fleet, unique).await.err(),
        wrong => wrong.unwrap_or_else(Some),
    };
    findings.extend(error.map(Finding::of));
    findings
}

/// Makes sure that a Redis can serve; what is worth a word is logged.
pub async fn require(fleet: &Fleet, unique: &str) -> Result<()> {
    for finding in inspect(fleet, unique).await {
        match finding.error {
            Some(error) => return Err(error),
            None if finding.advice.is_empty() => {}
            None => tracing::info!(redis = fleet.place(), "{}; {}", finding.found, finding.advice),
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
