//! The versions of the stage kinds that a program computes, or that a run is pinned to.
//!
//! Other versions give other bytes, so programs of different versions share neither runs nor queues.
//! Nothing here reads or writes; where a run's versions are kept is the store's affair.

use std::collections::BTreeMap;

use agrpo_spec::{ArtifactDigest, StageKind};
use serde::{Deserialize, Serialize};

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

    /// Their short name, twelve hexadecimal digits: in Redis it tells those apart who work together.
    #[must_use]
    pub fn tag(&self) -> String {
        ArtifactDigest::of(&self.bytes()).short()
    }

    /// As they are kept about a run.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).expect("numbers serialise")
    }

    /// Why a program of these versions leaves a run that is pinned to others alone, in one line; `None`
    /// where both are the same.
    pub fn misses(&self, pinned: &Self) -> Option<String> {
        let differs = self.0.iter().find(|(kind, version)| pinned.0.get(*kind) != Some(*version));
        if let Some((kind, version)) = differs {
            return Some(match pinned.0.get(kind) {
                Some(other) => format!(
                    "it is computed with version {other} of {kind} stages, this program has version \
                     {version}; enqueue it again with this program to change that"
                ),
                None => format!("the program that computes it knows no {kind} stages"),
            });
        }
        let unknown = pinned.0.keys().find(|kind| !self.0.contains_key(*kind))?;
        Some(format!("it is computed with {unknown} stages, which this program does not know"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::other_versions;

    #[test]
    fn versions_fit_only_where_they_are_the_same() {
        let (own, foreign) = (Versions::own(), other_versions());
        assert_eq!(own.misses(&Versions::own()), None);
        assert_ne!(own.tag(), foreign.tag());
        let why = own.misses(&foreign).unwrap();
        assert!(why.starts_with("it is computed with version 99 of rollout stages"), "{why}");
        let mut more = Versions::own();
        more.0.insert("dream".to_owned(), 1);
        assert_eq!(
            own.misses(&more).unwrap(),
            "it is computed with dream stages, which this program does not know"
        );
        assert_eq!(
            more.misses(&own).unwrap(),
            "the program that computes it knows no dream stages"
        );
    }
}
