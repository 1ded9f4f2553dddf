//! Stage keys: the place of a stage in its run, its spelling and its order.

use std::{fmt, str::FromStr};

use crate::{names::serde_as_text, stage::StageKind};

/// A stage's place in its run. Shown as `sft-000003`, `rollout-000012-01`, `update-000012`, `updates-000012`,
/// `gradient-000012-01-u2` for the second update from the same trajectories, and `evaluation-000012` or, of an
/// evaluation in shards, `evaluation-000012-03`; ordered as the run goes: sft, then iteration by iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageKey {
    /// Chunk of sft, or iteration. Iterations count from 1; 0 is the base's evaluation.
    pub iteration: u32,
    /// Which kind of stage.
    pub kind: StageKind,
    /// Shard of an iteration, or of its evaluation; `None` of a stage without shards.
    pub shard: Option<u32>,
    /// Which of an iteration's updates, from 1; 1 for stages that an iteration has once.
    pub inner: u32,
}

/// The text names no stage of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no stage of a run")]
pub struct ParseKeyError(String);

impl StageKey {
    /// A stage of which an iteration has one a shard, or the first of several updates. Kinds without shards, and
    /// evaluations, ignore the shard.
    pub fn new(kind: StageKind, iteration: u32, shard: u32) -> Self {
        Self { iteration, kind, shard: Self::is_sharded(kind).then_some(shard), inner: 1 }
    }

    /// One of an iteration's updates, counted from 1.
    pub fn update(iteration: u32, inner: u32) -> Self {
        Self::new(StageKind::Update, iteration, 0).of_update(inner)
    }

    /// All of an iteration's updates in one stage.
    pub fn updates(iteration: u32) -> Self {
        Self::new(StageKind::Updates, iteration, 0)
    }

    /// The evaluation of the policy after so many iterations: in one stage, or one of its shards.
    pub fn evaluation(iteration: u32, shard: Option<u32>) -> Self {
        Self { iteration, kind: StageKind::Evaluation, shard, inner: 1 }
    }

    /// The same stage in another of the iteration's updates.
    #[must_use]
    pub fn of_update(self, inner: u32) -> Self {
        Self { inner, ..self }
    }

    /// Its shard's number; 0 of a stage without shards.
    pub fn shard_number(&self) -> u32 {
        self.shard.unwrap_or(0)
    }

    fn rank(&self) -> (bool, u32, u32, StageKind, Option<u32>) {
        // An iteration's evaluation comes after the last of its updates.
        let inner = if self.kind == StageKind::Evaluation { u32::MAX } else { self.inner };
        (self.kind != StageKind::Sft, self.iteration, inner, self.kind, self.shard)
    }

    /// A text that sorts as keys do, of the same length for all keys.
    pub fn order(&self) -> String {
        let (after_sft, iteration, inner, kind, _) = self.rank();
        // No run has the same stage both with and without shards.
        let shard = self.shard_number();
        let kind = StageKind::ALL.iter().position(|&other| other == kind).unwrap_or_default();
        format!("{}{iteration:08x}{inner:08x}{kind}{shard:08x}", u8::from(after_sft))
    }

    /// Whether the stage makes a policy.
    pub fn makes_policy(&self) -> bool {
        self.kind == StageKind::Sft || self.is_update()
    }

    /// Whether the stage moves the policy of an iteration: one update, or all of them.
    pub fn is_update(&self) -> bool {
        matches!(self.kind, StageKind::Update | StageKind::Updates)
    }

    pub(super) fn is_sharded(kind: StageKind) -> bool {
        matches!(kind, StageKind::Rollout | StageKind::Reward | StageKind::Gradient)
    }

    /// Whether each of an iteration's updates has such a stage of its own.
    pub(super) fn is_of_update(kind: StageKind) -> bool {
        matches!(kind, StageKind::Gradient | StageKind::Update)
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
        if let Some(shard) = self.shard {
            write!(f, "-{shard:02}")?;
        }
        if self.inner > 1 { write!(f, "-u{}", self.inner) } else { Ok(()) }
    }
}

impl FromStr for StageKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let refuse = || ParseKeyError(text.to_owned());
        let mut parts = text.split('-').peekable();
        let name = parts.next().ok_or_else(refuse)?;
        let kind = StageKind::ALL.into_iter().find(|k| k.name() == name).ok_or_else(refuse)?;
        let iteration = parts.next().and_then(|p| p.parse().ok()).ok_or_else(refuse)?;
        let shard = match parts.next_if(|_| Self::is_sharded(kind) || kind == StageKind::Evaluation)
        {
            Some(part) => Some(part.parse().map_err(|_| refuse())?),
            None if Self::is_sharded(kind) => return Err(refuse()),
            None => None,
        };
        let inner = match parts.next() {
            None => 1,
            Some(part) if Self::is_of_update(kind) => {
                let number = part.strip_prefix('u').and_then(|number| number.parse().ok());
                number.filter(|&inner: &u32| inner > 1).ok_or_else(refuse)?
            }
            Some(_) => return Err(refuse()),
        };
        let key = Self { iteration, kind, shard, inner };
        if parts.next().is_some() { Err(refuse()) } else { Ok(key) }
    }
}

serde_as_text!(StageKey);
