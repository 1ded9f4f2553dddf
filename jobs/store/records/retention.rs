//! A run's retention, and the notes of outputs that it dropped, written before the outputs are deleted.
//!
//! Without either the run holds all outputs. A note marks outputs that retention deleted, so that they are not reported
//! as lost; whether the bytes are deleted depends on the other runs of the store.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{OutputRecord, Retention, Run, RunId, StageDigest, StageKey};
use serde::{Deserialize, Serialize};

use super::json::{Fields, Records, Unreadable};
use crate::{Result, paths, readable};

/// Outputs of a stage that a run no longer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroppedOutputs {
    /// The stage's place in the run.
    pub key: StageKey,
    /// The outputs, files of folders included.
    pub outputs: BTreeMap<String, OutputRecord>,
}

impl DroppedOutputs {
    /// The valid part of a note about the stage of this place: without outputs that every run retains. `newest` is the
    /// iteration of the newest complete update; it applies to updates only, since it falls back where a record is lost.
    pub fn within(mut self, run: &Run, key: StageKey, newest: u32) -> Self {
        let newest = if key.is_update() { newest } else { u32::MAX };
        let names = Retention::LEAST.deletes(run, key, newest);
        let may_go =
            |output: &str| output.split('/').next().is_some_and(|name| names.contains(&name));
        self.outputs.retain(|output, _| may_go(output));
        self
    }
}

impl Fields for DroppedOutputs {}

impl Fields for Retention {
    const REMEDY: &'static str = "start the run again from its file, which writes it anew";
}

impl Records {
    /// Records a run's retention, over one that was recorded before.
    pub(super) async fn put_retention(&self, run: &Run) -> Result<()> {
        let retention = run.config().retention;
        let name = paths::of_run(run.id(), "retention.json");
        if retention.keeps_all() && self.objects.size(&name).await?.is_none() {
            return Ok(());
        }
        self.put(&name, &retention).await
    }

    /// A run's retention. Data error if the record is corrupt.
    pub async fn retention(&self, run: RunId) -> Result<Retention> {
        Ok(self.get(&paths::of_run(run, "retention.json")).await?.unwrap_or_default())
    }

    /// The same, with the record beside it if it cannot be read.
    pub async fn readable_retention(&self, run: RunId) -> Result<(Retention, Option<Unreadable>)> {
        let (found, unreadable) = self.readable(paths::of_run(run, "retention.json")).await?;
        Ok((found.unwrap_or_default(), unreadable))
    }

    /// Notes that a run no longer holds outputs of a stage.
    pub async fn note_dropped(
        &self,
        run: RunId,
        stage: StageDigest,
        dropped: &DroppedOutputs,
    ) -> Result<()> {
        self.put(&paths::in_run(run, "dropped", stage), dropped).await
    }

    /// The outputs of a stage that a run has dropped. A note that cannot be read counts as none.
    pub async fn dropped(&self, run: RunId, stage: StageDigest) -> Result<Option<DroppedOutputs>> {
        let name = paths::in_run(run, "dropped", stage);
        let found = readable(self.get(&name).await)?;
        if let Err(error) = &found
            && self.objects.is_first(&name)
        {
            tracing::warn!(%error, "ignoring a list of deleted outputs that cannot be read");
        }
        Ok(found.ok().flatten())
    }

    /// The stages of which a run has dropped outputs; costs one listing.
    pub async fn stages_with_dropped(&self, run: RunId) -> Result<BTreeSet<StageDigest>> {
        Ok(self.list(&paths::of_run(run, "dropped")).await?.into_iter().collect())
    }
}
