//! The registry: workers as each describes itself with every heartbeat, stored in Redis and shown by `agrpo status`.
//!
//! A worker without a heartbeat for a while is left out. The registry decides only whether a stage that failed here may
//! wait for another worker.

use std::{collections::BTreeMap, time::Duration};

use agrpo_spec::{Numerics, RunId, StageDigest, StageKey};
use serde::{Deserialize, Serialize};

use crate::coordination::keys::{ABOUT, WORKERS};
use crate::{Result, coordination::redis::Fleet};

/// Longer than any pause between two heartbeats of a worker.
const ABSENT: Duration = Duration::from_secs(15);

/// A stage that is being computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInProgress {
    /// The run that asked for it.
    pub run: RunId,
    /// Its place in the run.
    pub key: StageKey,
    /// Its name.
    pub stage: StageDigest,
    /// Since when, in milliseconds since 1970 by the worker's clock.
    pub since_unix_ms: u64,
}

/// A worker, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Unique to its start.
    pub name: String,
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it computes on.
    pub device: String,
    /// The class of the stages that it takes.
    pub class: Numerics,
    /// The program's version.
    pub version: String,
    /// When it began, in milliseconds since 1970 by its own clock.
    pub since_unix_ms: u64,
    /// What it is computing.
    #[serde(rename = "in_hand")]
    pub computing: Option<StageInProgress>,
    /// Stages that it has published.
    pub stages_done: u64,
    /// When it was last seen, in milliseconds since 1970 by Redis' clock.
    #[serde(default)]
    pub seen_unix_ms: u64,
    /// How long ago that was, in milliseconds.
    #[serde(default)]
    pub seen_ms_ago: u64,
}

/// When each worker was seen, its description, and Redis' time.
type Registry = (Vec<(String, f64)>, BTreeMap<String, String>, (u64, u64));

/// The workers that are alive, by name.
pub async fn workers(fleet: &Fleet) -> Result<Vec<WorkerInfo>> {
    let mut pipe = redis::pipe();
    pipe.zrange_withscores(fleet.keys.of(WORKERS), 0, -1).hgetall(fleet.keys.of(ABOUT)).cmd("TIME");
    let (seen, about, (seconds, micros)): Registry = fleet.ask_all(&pipe).await?;
    let now = seconds * 1000 + micros / 1000;
    let seen: BTreeMap<String, f64> = seen.into_iter().collect();
    let alive = |(name, text): (&String, &String)| {
        // A worker of another version may have other fields.
        let about: WorkerInfo = serde_json::from_str(text).ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let seen_unix_ms = *seen.get(name)? as u64;
        // A time ahead was written before Redis' clock was set back; the next heartbeat corrects it.
        let seen_ms_ago = now.saturating_sub(seen_unix_ms);
        (u128::from(now.abs_diff(seen_unix_ms)) < ABSENT.as_millis()).then_some(WorkerInfo {
            seen_unix_ms,
            seen_ms_ago,
            ..about
        })
    };
    Ok(about.iter().filter_map(alive).collect())
}
