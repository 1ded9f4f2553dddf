//! What a run keeps, and what it has let go.
//!
//! ```text
//! runs/<run>/retention.json    what the newest `run` or `enqueue` of the run asked for
//! runs/<run>/dropped/<stage>   the outputs that the run no longer holds, noted before they go
//! ```
//! Without either everything is held. A note is a promise not to call an absence a loss; whether the
//! bytes really go depends on the other runs of the store.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{Manifest, OutputRecord, Retention, Run, RunId, StageDigest, StageKey, StageKind};
use serde::{Deserialize, Serialize};

use super::Store;
use super::records::{Place, REPAIR, Unreadable, sorted};
use crate::error::JobsError;

/// Outputs of a stage that a run no longer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetGo {
    /// The stage's place in the run.
    pub(crate) key: StageKey,
    /// The outputs, files of folders included.
    pub(crate) outputs: BTreeMap<String, OutputRecord>,
}

impl LetGo {
    /// What counts of a note about the stage of this place while the newest complete update is that of iteration
    /// `newest`: no run lets go what every run keeps. Only updates are measured by that, as it falls back where a
    /// record is lost or the run begins anew with other versions.
    pub(crate) fn within(mut self, run: &Run, key: StageKey, newest: u32) -> Self {
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

fn let_go_name(run: RunId, stage: StageDigest) -> String {
    format!("runs/{run}/dropped/{stage}")
}

impl Store {
    /// Records what is kept of a run; takes the place of what was recorded before.
    pub(super) async fn put_retention(&self, run: &Run) -> Result<(), JobsError> {
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
    pub(crate) async fn note_let_go(
        &self,
        run: RunId,
        stage: StageDigest,
        let_go: &LetGo,
    ) -> Result<(), JobsError> {
        self.replace_record(&let_go_name(run, stage), let_go).await
    }

    /// The outputs of a stage that a run no longer holds. A note that cannot be read counts as none: what
    /// it said is then held, and computed again where somebody needs it.
    pub(crate) async fn let_go(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<LetGo>, JobsError> {
        let name = let_go_name(run, stage);
        match self.record(Place { name: &name, remedy: REPAIR }).await {
            Err(error @ (JobsError::Data(_) | JobsError::Incompatible(_))) => {
                if self.told.is_news(&name) {
                    tracing::warn!(%error, "a note that cannot be read is ignored");
                }
                Ok(None)
            }
            found => found,
        }
    }

    /// The stages of which a run has let outputs go; costs one listing.
    pub(crate) async fn stages_let_go(
        &self,
        run: RunId,
    ) -> Result<BTreeSet<StageDigest>, JobsError> {
        let names = self.backend.list(&format!("runs/{run}/dropped")).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The record of a stage of a run if it needs no computing: its outputs are there, or the run let go
    /// of those that are not. A damaged record is put aside.
    pub(crate) async fn settled_manifest(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Manifest>, JobsError> {
        let Some(manifest) = self.manifest_or_aside(run, stage).await? else { return Ok(None) };
        let let_go = async || self.let_go(run, stage).await;
        Ok(self.is_complete_but(&manifest, let_go).await?.then_some(manifest))
    }
}
