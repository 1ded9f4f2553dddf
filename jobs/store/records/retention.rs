//! What a run keeps, and which outputs it has dropped.
//!
//! ```text
//! runs/<run>/retention.json    what the newest `run` or `enqueue` of the run asked for
//! runs/<run>/dropped/<stage>   the outputs that the run no longer holds, noted before they are deleted
//! ```
//! Without either everything is held. A note marks outputs that retention deleted, so that they are not reported as lost;
//! whether the bytes are deleted depends on the other runs of the store.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{Manifest, OutputRecord, Retention, Run, RunId, StageDigest, StageKey, StageKind};
use serde::{Deserialize, Serialize};

use super::sealed::{Place, REPAIR, Unreadable, sorted};
use crate::error::JobsError;
use crate::store::Store;

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
    /// What counts of a note about the stage of this place while the newest complete update is that of iteration
    /// `newest`: no run lets go what every run keeps. Only updates are measured by that, as it falls back where a
    /// record is lost or the run begins anew with other versions.
    pub fn within(mut self, run: &Run, key: StageKey, newest: u32) -> Self {
        let newest = if key.kind == StageKind::Update { newest } else { u32::MAX };
        let names = Retention::LEAST.let_go(run, key, newest);
        let may_go =
            |output: &str| output.split('/').next().is_some_and(|name| names.contains(&name));
        self.outputs.retain(|output, _| may_go(output));
        self
    }
}

/// What mends a damaged record of what is kept.
const AGAIN: &str = "start the run again from its file, which writes it anew";

fn retention_name(run: RunId) -> String {
    format!("runs/{run}/retention.json")
}

fn dropped_name(run: RunId, stage: StageDigest) -> String {
    format!("runs/{run}/dropped/{stage}")
}

impl Store {
    /// Records what is kept of a run; takes the place of what was recorded before.
    pub(crate) async fn put_retention(&self, run: &Run) -> Result<(), JobsError> {
        let retention = run.config().retention;
        let name = retention_name(run.id());
        if retention.keeps_all() && self.backend.size(&name).await?.is_none() {
            return Ok(());
        }
        self.replace_record(&name, &retention).await
    }

    /// What is kept of a run. Data error if the record is corrupt.
    pub async fn retention(&self, run: RunId) -> Result<Retention, JobsError> {
        let name = retention_name(run);
        Ok(self.record(Place { name: &name, remedy: AGAIN }).await?.unwrap_or_default())
    }

    /// The same, with the record beside it if it cannot be read.
    pub async fn readable_retention(
        &self,
        run: RunId,
    ) -> Result<(Retention, Option<Unreadable>), JobsError> {
        let found = self.each_record(vec![retention_name(run)], AGAIN).await?;
        let (mut found, mut unreadable) = sorted(found);
        Ok((found.pop().unwrap_or_default(), unreadable.pop()))
    }

    /// Notes that a run no longer holds outputs of a stage.
    pub async fn note_dropped(
        &self,
        run: RunId,
        stage: StageDigest,
        dropped: &DroppedOutputs,
    ) -> Result<(), JobsError> {
        self.replace_record(&dropped_name(run, stage), dropped).await
    }

    /// The outputs of a stage that a run no longer holds. A note that cannot be read counts as none: what
    /// it said is then held, and computed again where it is needed.
    pub async fn dropped(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<DroppedOutputs>, JobsError> {
        let name = dropped_name(run, stage);
        match self.record(Place { name: &name, remedy: REPAIR }).await {
            Err(error @ (JobsError::Data(_) | JobsError::Incompatible(_))) => {
                if self.news.is_news(&name) {
                    tracing::warn!(%error, "a note that cannot be read is ignored");
                }
                Ok(None)
            }
            found => found,
        }
    }

    /// The stages of which a run has let outputs go; costs one listing.
    pub async fn stages_with_dropped(
        &self,
        run: RunId,
    ) -> Result<BTreeSet<StageDigest>, JobsError> {
        let names = self.backend.list(&format!("runs/{run}/dropped")).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The record of a stage of a run if it needs no computing: its outputs are there, or the run let go
    /// of those that are not. A damaged record is put aside.
    pub async fn settled_manifest(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Manifest>, JobsError> {
        let Some(manifest) = self.manifest_or_quarantine(run, stage).await? else {
            return Ok(None);
        };
        let dropped = async || self.dropped(run, stage).await;
        Ok(self.is_complete_but(&manifest, dropped).await?.then_some(manifest))
    }
}
