//! Where a stage stands in its run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::stage::StageKind;

/// A stage's place in its run. Shown as `sft-000003`, `rollout-000012-01`, `update-000012`; ordered as
/// the run goes: sft, then iteration by iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageKey {
    /// Chunk of sft, or iteration. Iterations count from 1; 0 is the base's evaluation.
    pub iteration: u32,
    /// Which kind of stage.
    pub kind: StageKind,
    /// Shard of an iteration; 0 where there are none.
    pub shard: u32,
}

impl StageKey {
    pub(super) fn new(kind: StageKind, iteration: u32, shard: u32) -> Self {
        Self { iteration, kind, shard }
    }

    fn rank(&self) -> (bool, u32, StageKind, u32) {
        (self.kind != StageKind::Sft, self.iteration, self.kind, self.shard)
    }

    fn is_sharded(kind: StageKind) -> bool {
        matches!(kind, StageKind::Rollout | StageKind::Reward | StageKind::Gradient)
    }
}

impl Ord for StageKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for StageKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:06}", self.kind, self.iteration)?;
        if Self::is_sharded(self.kind) { write!(f, "-{:02}", self.shard) } else { Ok(()) }
    }
}

impl FromStr for StageKey {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let refuse = || PlanError::Key(text.to_owned());
        let mut parts = text.split('-');
        let name = parts.next().ok_or_else(refuse)?;
        let kind = StageKind::ALL.into_iter().find(|k| k.name() == name).ok_or_else(refuse)?;
        let iteration = parts.next().and_then(|p| p.parse().ok()).ok_or_else(refuse)?;
        let shard = match (Self::is_sharded(kind), parts.next()) {
            (true, Some(part)) => part.parse().map_err(|_| refuse())?,
            (false, None) => 0,
            _ => return Err(refuse()),
        };
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self::new(kind, iteration, shard)) }
    }
}

impl Serialize for StageKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StageKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
