//! The versions of the stage kinds that a program computes, and those that a run is pinned to.
//!
//! Other versions give other bytes, so programs of different versions share neither runs nor queues. The first program
//! that reads the versions of a run without a pin pins it to its own.

use std::collections::BTreeMap;

use agrpo_spec::{ArtifactDigest, RunId, StageKind};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::json::{AT_ONCE, Fields, Records};
use super::policies::PolicyNote;
use crate::{JobsError, Result, paths};

/// The version of the bytes of each kind of stage, by the kind's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Versions(BTreeMap<String, u32>);

impl Versions {
    /// The versions that this program computes.
    #[must_use]
    pub fn own() -> Self {
        let version = |kind: StageKind| (kind.name().to_owned(), kind.version());
        Self(StageKind::ALL.into_iter().map(version).collect())
    }

    /// Their short name, twelve hexadecimal digits: in Redis it names the queue of programs that share these versions.
    #[must_use]
    pub fn tag(&self) -> String {
        let text = serde_json::to_vec_pretty(&self.0).expect("numbers serialise");
        ArtifactDigest::of(&text).short()
    }

    /// Why a program of these versions cannot compute a run of pinned versions; `None` if both are the same.
    pub fn misses(&self, pinned: &Self) -> Option<String> {
        let mut kinds = self.0.keys().chain(pinned.0.keys());
        let kind = kinds.find(|kind| self.0.get(*kind) != pinned.0.get(*kind))?;
        Some(match (self.0.get(kind), pinned.0.get(kind)) {
            (Some(version), Some(other)) => format!(
                "it is computed with version {other} of {kind} stages, this program has version {version}; enqueue \
                 it again with this program to change that"
            ),
            (Some(_), None) => format!("the program that computes it knows no {kind} stages"),
            (None, _) => {
                format!("it is computed with {kind} stages, which this program does not know")
            }
        })
    }
}

impl Fields for Versions {
    const REMEDY: &'static str = "enqueue the run again: that writes it anew";
}

impl Records {
    /// Pins the run to this program's versions, on a user's request. Returns the versions that computed it before, if
    /// they were others.
    pub async fn pin_versions(&self, run: RunId) -> Result<Option<Versions>> {
        let (name, own) = (paths::of_run(run, "versions.json"), Versions::own());
        // A user asked for the run: a damaged record is replaced.
        let Some(found) = self.create(&name, &own).await? else { return Ok(None) };
        let pinned = found.value;
        if pinned == own {
            return Ok(None);
        }
        let mut stale = vec![];
        for folder in ["stages", "policies"] {
            let files = self.objects.list(&paths::of_run(run, folder)).await?.into_iter();
            stale.extend(files.map(|file| paths::in_run(run, folder, file)));
        }
        // First the pin: until it is written, the index alone says what the run of the other versions needs.
        self.put(&name, &own).await?;
        self.clear_index(run, stale).await?;
        Ok(Some(pinned))
    }

    /// Deletes a run's index and notes of policies, since the plan has other stages now. Notes of a newer format stay.
    async fn clear_index(&self, run: RunId, names: Vec<String>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            run = run.short(),
            entries = names.len(),
            "other stage versions computed this run: deleting its index; agrpo gc deletes what only they computed"
        );
        let deletions = names.into_iter().map(|name| async move {
            if name.contains("/stages/") {
                return self.objects.delete(&name).await;
            }
            match self.delete::<PolicyNote>(&name).await {
                Err(JobsError::Incompatible(_)) => Ok(()),
                deleted => deleted,
            }
        });
        let deletions = stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        deletions.try_collect::<Vec<()>>().await.map(drop)
    }

    /// The versions that compute the run; pins this program's if there are none. Data error if it is corrupt.
    pub async fn versions(&self, run: RunId) -> Result<Versions> {
        let (name, own) = (paths::of_run(run, "versions.json"), Versions::own());
        match self.get(&name).await? {
            Some(pinned) => Ok(pinned),
            None => Ok(self.create(&name, &own).await?.map_or(own, |found| found.value)),
        }
    }

    /// Why this program cannot derive the run's stages: other versions of them are pinned.
    pub async fn incompatible_versions(&self, run: RunId) -> Result<Option<String>> {
        let pinned: Option<Versions> = self.get(&paths::of_run(run, "versions.json")).await?;
        Ok(pinned.and_then(|pinned| Versions::own().misses(&pinned)))
    }

    /// Refuses a run whose stages this program cannot derive.
    pub async fn require_own_versions(&self, run: RunId) -> Result<()> {
        match self.incompatible_versions(run).await? {
            Some(why) => Err(JobsError::incompatible(format!("run {}: {why}", run.short()))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::other_versions;

    #[test]
    fn versions_fit_only_where_they_are_the_same() {
        let (own, other) = (Versions::own(), other_versions());
        assert_eq!(own.misses(&Versions::own()), None);
        assert_ne!(own.tag(), other.tag());
        let why = own.misses(&other).unwrap();
        assert!(why.starts_with("it is computed with version 99 of rollout stages"), "{why}");
        let mut more = Versions::own();
        more.0.insert("dream".to_owned(), 1);
        let why = own.misses(&more).unwrap();
        assert_eq!(why, "it is computed with dream stages, which this program does not know");
        let why = more.misses(&own).unwrap();
        assert_eq!(why, "the program that computes it knows no dream stages");
    }
}
