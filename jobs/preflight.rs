//! Whether a Redis can serve a fleet, found out before anything depends on it.
//!
//! What it says of itself, the types of our keys, and a trial of every command and script under names of
//! its own. Changes no setting and leaves nothing behind. Clocks are compared here too; which difference is
//! too much is what workers refuse.

mod trial;

use std::time::Duration;

use crate::clock::Clock;
use crate::error::JobsError;
use crate::redis::{Fleet, types};
use crate::store::Store;

/// How far a worker's clock and that of Redis may be apart.
pub(crate) const SKEW: Duration = Duration::from_secs(4);
/// The oldest version whose commands are enough.
const OLDEST: (u32, u32) = (6, 2);
/// A share of `maxmemory` from which on it is worth a word, in percent.
const NEARLY_FULL: u64 = 90;

/// One thing that was found out about a Redis.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What there is, in one line.
    pub found: String,
    /// What to do; empty where nothing has to be done.
    pub advice: String,
    /// Why it cannot serve, if so.
    pub error: Option<JobsError>,
}

impl Finding {
    fn note(found: String, advice: &str) -> Self {
        Self { found, advice: advice.to_owned(), error: None }
    }

    fn bad(place: &str, found: &str, advice: &str, may_pass: bool) -> Self {
        let message = format!("Redis at {place} cannot serve: {found}; {advice}");
        Self {
            found: found.to_owned(),
            advice: advice.to_owned(),
            error: Some(JobsError::Misconfigured { message, may_pass }),
        }
    }

    fn of(error: JobsError) -> Self {
        Self { found: error.to_string(), advice: String::new(), error: Some(error) }
    }
}

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
    match types::wrong(fleet).await {
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

/// What a server's own words come to; `saves` are its points of saving, where it told them.
fn judge(place: &str, info: &str, saves: Option<String>) -> Vec<Finding> {
    let say = |name: &str| {
        let lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default()
    };
    let number = |name: &str| say(name).parse::<u64>().unwrap_or(0);
    let version = say("redis_version");
    let policy = say("maxmemory_policy");
    let mut all = vec![Finding {
        found: format!("{place} answers: Redis {version}, {policy}"),
        advice: String::new(),
        error: None,
    }];
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
        let found = format!("it has version {version:?}");
        all.push(Finding::bad(place, &found, "6.2 is the oldest that will do", false));
    }
    if say("role") == "slave" {
        let found = format!(
            "it is a replica of {}:{} and takes no writes",
            say("master_host"),
            say("master_port")
        );
        let advice =
            "name the master in AGRPO_REDIS, or end the replication with `REPLICAOF NO ONE`";
        all.push(Finding::bad(place, &found, advice, true));
    }
    if policy != "noeviction" {
        let found = format!("maxmemory-policy is {policy:?}, so it may drop what workers rely on");
        let advice = "`CONFIG SET maxmemory-policy noeviction`, and the same line in redis.conf";
        all.push(Finding::bad(place, &found, advice, false));
    }
    if say("cluster_enabled") == "1" {
        all.push(Finding::note(
            "it is in cluster mode; all keys of agrpo are in one slot of this node".to_owned(),
            "a Redis without cluster mode is enough, and does not move them to another node",
        ));
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    if most > 0 && used >= most / 100 * NEARLY_FULL {
        all.push(Finding::note(
            format!("{used} of {most} bytes of memory are used"),
            "raise maxmemory: a full Redis takes no writes",
        ));
    }
    if say("aof_enabled") == "0" && saves.is_none_or(|points| points.is_empty()) {
        all.push(Finding::note(
            "it keeps nothing on disk".to_owned(),
            "with `appendonly yes` a restart costs less time; results are safe in the store either way",
        ));
    }
    all
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
