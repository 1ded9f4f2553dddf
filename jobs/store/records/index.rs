//! A run's index: which stages are done, and which were computed twice.
//!
//! None of this decides a result: planning the run from its start finds the same manifests, so losing the index costs
//! time only.

use std::collections::BTreeMap;

use agrpo_spec::{RunId, StageDigest, StageKey};
use bytes::Bytes;

use super::json::Records;
use crate::{Result, paths};

impl Records {
    /// Notes in the run's index that a stage is done. Not flushed to the disk.
    pub async fn record_stage(&self, run: RunId, key: StageKey, stage: StageDigest) -> Result<()> {
        let entry = paths::indexed(run, key, stage);
        self.objects.hint(&entry, Bytes::from(format!("{stage}\n"))).await
    }

    /// The run's index by place in the run; costs one listing. Entries may be wrong: the fleet's `Walk` checks them.
    pub async fn recorded_stages(&self, run: RunId) -> Result<BTreeMap<StageKey, StageDigest>> {
        Ok(self.recorded_entries(run).await?.into_iter().collect())
    }

    /// Every entry of the run's index, in the order of the plan.
    pub async fn recorded_entries(&self, run: RunId) -> Result<Vec<(StageKey, StageDigest)>> {
        let files = self.objects.list(&paths::of_run(run, "stages")).await?;
        let mut entries: Vec<_> =
            files.iter().filter_map(|file| paths::parse_indexed(file)).collect();
        entries.sort_unstable();
        Ok(entries)
    }

    /// Whether the run's index says that the stage is done. Entries may be wrong.
    pub async fn is_recorded(&self, run: RunId, key: StageKey, stage: StageDigest) -> Result<bool> {
        Ok(self.objects.size(&paths::indexed(run, key, stage)).await?.is_some())
    }

    /// Warns, once for each run, that an entry of its index names a stage that is not the run's.
    pub fn log_incompatible(&self, run: RunId, key: StageKey, stage: StageDigest) {
        let entry = paths::indexed(run, key, stage);
        if self.objects.is_first(&format!("incompatible {run}")) {
            tracing::warn!(
                entry,
                "the run has another stage in this place: the entry is ignored, as are all others like it; \
                 agrpo verify lists them"
            );
        }
    }

    /// Notes that a stage was computed although another worker had published it. Not flushed to the disk.
    pub async fn record_twice(&self, run: RunId, stage: StageDigest) -> Result<()> {
        let name = paths::in_run(run, "twice", stage);
        self.objects.hint(&name, Bytes::from(format!("{stage}\n"))).await
    }

    /// How many of the run's stages were computed more than once.
    pub async fn computed_twice(&self, run: RunId) -> Result<u64> {
        Ok(self.objects.list(&paths::of_run(run, "twice")).await?.len() as u64)
    }
}
