//! Repairs: stages that were recomputed because a result had been lost.
//!
//! `runs/<run>/rewound/<stage>.<unix ms>`: one JSON document each time. They show where time went and that a disk or
//! bucket loses data; they decide nothing.

use agrpo_spec::{ArtifactDigest, RunId, StageDigest, StageKey};
use serde::{Deserialize, Serialize};

use super::json::{Fields, Records, Split};
use crate::{Result, paths};

/// Why a stage was computed a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// An output was missing.
    Missing,
    /// An output had another digest than its name.
    Corrupt,
    /// The run's retention had deleted an output.
    Dropped,
    /// The stage's record could not be read.
    CorruptManifest,
    /// The stage's record was missing, and an output with it.
    MissingManifest,
}

/// One stage computed a second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repair {
    /// The stage.
    pub stage: StageDigest,
    /// Its place in the run, where the index knew it.
    pub key: Option<StageKey>,
    /// The blob that was needed; none where the stage's record was damaged.
    pub lost: Option<ArtifactDigest>,
    /// Why.
    pub why: Why,
    /// The stage that could not go on without it.
    pub needed_by: Option<StageDigest>,
    /// Who did it.
    pub worker: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Fields for Repair {}

impl Records {
    /// Records that a stage was computed a second time.
    pub async fn record_repair(&self, run: RunId, repair: &Repair) -> Result<()> {
        let file = format!("{}.{}", repair.stage, repair.unix_ms);
        self.put(&paths::in_run(run, "rewound", file), repair).await
    }

    /// How often stages of the run were computed a second time because a result was lost.
    pub async fn repair_count(&self, run: RunId) -> Result<u64> {
        Ok(self.objects.list(&paths::of_run(run, "rewound")).await?.len() as u64)
    }

    /// The run's repairs, oldest first, and those that cannot be read.
    pub async fn readable_repairs(&self, run: RunId) -> Split<Repair> {
        let files = self.objects.list(&paths::of_run(run, "rewound")).await?.into_iter();
        let names = files.map(|file| paths::in_run(run, "rewound", file)).collect();
        let (mut repairs, unreadable) = self.each::<Repair>(names).await?;
        repairs.sort_unstable_by_key(|repair| (repair.unix_ms, repair.stage));
        Ok((repairs, unreadable))
    }
}
