//! Whether a Redis can serve a fleet, found out before anything depends on it.
//!
//! What it says of itself, the types of our keys, and a trial of every command and script under names of
//! its own. Changes no setting and leaves nothing behind. Clocks are compared here too; which difference is
//! too much is what workers refuse.

mod trial;

use std::time::Duration;

pub use crate::coordination::redis::settings::Finding;
use crate::coordination::redis::settings::judge;
use crate::coordination::redis::{Fleet, types};
use agrpo_store::Clock;
use agrpo_store::JobsError;
use agrpo_store::Store;

/// How far a worker's clock and that of Redis may be apart.
pub(crate) const SKEW: Duration = Duration::from_secs(4);

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
    let mut findings = judge(fleet.place(), &info, saves.ok().map(|(_, points)| points));
    if findings.iter().any(|finding| finding.error.is_some()) {
        return findings;
    }
    match types::wrong(&fleet.keys, fleet.place(), &mut fleet.connection()).await {
        Ok(None) => {}
        Ok(Some(message)) => {
            findings.push(Finding::of(JobsError::Misconfigured { message, may_pass: false }));
            return findings;
        }
        Err(error) => {
            findings.push(Finding::of(fleet.failed(&error).await));
            return findings;
        }
    }
    if let Err(error) = trial::trial(fleet, unique).await {
        findings.push(Finding::of(error));
    }
    findings
}

/// Makes sure that a Redis can serve; what is worth a word is logged.
pub async fn require(fleet: &Fleet, unique: &str) -> Result<(), JobsError> {
    for finding in inspect(fleet, unique).await {
        match finding.error {
            Some(error) => return Err(error),
            None if finding.advice.is_empty() => {}
            None => tracing::info!(redis = fleet.place(), "{}; {}", finding.found, finding.advice),
        }
    }
    Ok(())
}

/// Two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// By how much this machine's clock is ahead, in milliseconds; negative where it is behind.
    pub ahead_ms: i64,
    /// Whether workers would refuse it.
    pub is_too_much: bool,
}

impl Skew {
    /// A clock that said `other` between two looks at ours and shows times to `grain` milliseconds only.
    pub(crate) fn between(before: u64, other: u64, after: u64, grain: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let ahead = before.saturating_sub(other.saturating_add(grain));
        let behind = other.saturating_sub(after.max(before));
        let is_too_much = u128::from(ahead.max(behind)) > SKEW.as_millis();
        Self { ahead_ms: signed(ahead) - signed(behind), is_too_much }
    }
}

/// Compares this machine's clock with that of Redis.
pub async fn clock_skew(fleet: &Fleet, clock: &Clock) -> Result<Skew, JobsError> {
    let before = clock();
    let (seconds, micros): (u64, u64) = fleet.ask(&redis::cmd("TIME")).await?;
    Ok(Skew::between(before, seconds.saturating_mul(1000) + micros / 1000, clock(), 0))
}

/// Compares this machine's clock with the store's own, which dates its objects to the second.
pub async fn store_skew(store: &Store, clock: &Clock) -> Result<Skew, JobsError> {
    let before = clock();
    let written = store.now_ms().await?;
    Ok(Skew::between(before, u64::try_from(written).unwrap_or(0), clock(), 1000))
}

#[cfg(test)]
mod tests;
