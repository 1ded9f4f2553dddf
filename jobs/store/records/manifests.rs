//! Manifests: the record of a finished stage, created once.
//!
//! A manifest counts only if every blob that it names is there in full length. Two results of one
//! stage must be the same: where they differ nothing is overwritten, and both names are reported.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, Manifest, OutputRecord, RunId, StageDigest};
use bytes::Bytes;
use futures::future::try_join_all;

use super::repairs::{Repair, Why};
use super::retention::DroppedOutputs;
use super::sealed::Place;
use crate::cas::blob_name;
use crate::error::JobsError;
use crate::store::Store;

pub(crate) fn manifest_name(stage: StageDigest) -> String {
    format!("stages/{stage}")
}

pub(crate) fn place(name: &str) -> Place<'_> {
    let remedy = "agrpo run FILE --repair, with the run's file, computes the stage again";
    Place { name, remedy }
}

/// The first output on which two manifests of a stage disagree, in words for people.
fn disagreement(ours: &Manifest, theirs: &Manifest) -> Option<String> {
    let names: BTreeSet<_> = ours.outputs.keys().chain(theirs.outputs.keys()).collect();
    let show = |digest: Option<ArtifactDigest>| match digest {
        Some(digest) => digest.to_string(),
        None => "nothing".to_owned(),
    };
    names.into_iter().find_map(|name| {
        let differ = ours.outputs.get(name) != theirs.outputs.get(name);
        let (ours, theirs) = (ours.output(name), theirs.output(name));
        differ.then(|| {
            format!(
                "output `{name}` is recorded as {}, computed now as {}",
                show(theirs),
                show(ours)
            )
        })
    })
}

impl Store {
    /// The record of a stage, whether or not its blobs are there. Data error if it is corrupt.
    pub async fn manifest(&self, stage: StageDigest) -> Result<Option<Manifest>, JobsError> {
        let name = manifest_name(stage);
        let found = self.read_record(place(&name), |bytes| Manifest::open(stage, bytes)).await?;
        Ok(found.map(|record| record.value))
    }

    /// Every stage that has a record, sorted.
    pub async fn all_stages(&self) -> Result<Vec<StageDigest>, JobsError> {
        let names = self.backend.list("stages").await?;
        let mut stages: Vec<_> = names.iter().filter_map(|name| name.parse().ok()).collect();
        stages.sort_unstable();
        Ok(stages)
    }

    /// The record of a stage whose outputs are all there. `None` where it has to be computed.
    pub async fn complete_manifest(
        &self,
        stage: StageDigest,
    ) -> Result<Option<Manifest>, JobsError> {
        match self.manifest(stage).await? {
            Some(manifest) if self.is_complete(&manifest).await? => Ok(Some(manifest)),
            _ => Ok(None),
        }
    }

    pub(crate) async fn is_complete(&self, manifest: &Manifest) -> Result<bool, JobsError> {
        self.is_complete_but(manifest, async || Ok(None)).await
    }

    /// Whether all outputs of a stage are there but for those that its run let go, which is asked only where
    /// one is missing or cut.
    pub(crate) async fn is_complete_but(
        &self,
        manifest: &Manifest,
        dropped: impl AsyncFnOnce() -> Result<Option<DroppedOutputs>, JobsError>,
    ) -> Result<bool, JobsError> {
        let sizes: BTreeMap<_, _> =
            manifest.outputs.values().map(|record| (record.digest, record.size)).collect();
        let looks = sizes.into_iter().map(|(digest, size)| async move {
            let found = self.backend.size(&blob_name(digest)).await?;
            Ok::<_, JobsError>((found != Some(size)).then_some((digest, found)))
        });
        let absent: BTreeMap<_, _> = try_join_all(looks).await?.into_iter().flatten().collect();
        if absent.is_empty() {
            return Ok(true);
        }
        let dropped = dropped().await?;
        let is_kept = |(name, record): &(&String, &OutputRecord)| {
            dropped.as_ref().is_none_or(|dropped| dropped.outputs.get(*name) != Some(*record))
        };
        let kept: BTreeMap<_, _> = manifest
            .outputs
            .iter()
            .filter(is_kept)
            .map(|(_, kept)| (kept.digest, kept.size))
            .collect();
        let mut is_complete = true;
        for (digest, found) in &absent {
            let Some(size) = kept.get(digest) else { continue };
            let stage = manifest.stage;
            tracing::warn!(%stage, %digest, size, ?found, "a result's blob is missing or cut");
            is_complete = false;
        }
        Ok(is_complete)
    }

    /// Records a finished stage whose outputs are stored; answers with the record that stands, which
    /// may be another worker's. Data error if that one names other outputs, incompatible if another
    /// version wrote it. A record whose blobs are gone is replaced.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Manifest, JobsError> {
        let name = manifest_name(manifest.stage);
        let bytes = Bytes::from(manifest.to_bytes());
        let Some(found) = self.backend.create(&name, bytes.clone()).await? else {
            return Ok(manifest.clone());
        };
        let open = |bytes: &[u8]| Manifest::open(manifest.stage, bytes);
        let found = match self.open_record(place(&name), found, open).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(JobsError::Unavailable(format!("{name} went as it was read"))),
            Err(JobsError::Data(error)) => {
                tracing::warn!(error, "replacing a damaged record by what was computed");
                self.backend.replace(&name, bytes).await?;
                return Ok(manifest.clone());
            }
            Err(error) => return Err(error),
        };
        // A record from before they were sealed has no digest to check: two reads have to agree on it.
        if !found.is_sealed && self.backend.read(&name).await?.as_ref() != Some(&found.bytes) {
            return Err(self.unsteady(&name));
        }
        let standing = found.value;
        let Some(difference) = disagreement(manifest, &standing) else {
            // Young again: a gc that found it old and unreached must not take it now.
            self.backend.replace(&name, found.bytes).await?;
            return Ok(standing);
        };
        if self.is_complete(&standing).await? {
            return Err(JobsError::Data(format!(
                "{name} in {}: {difference}; the same stage gave two results: compare the \
                 environments, and delete the record to accept the new one",
                self.url()
            )));
        }
        tracing::warn!(stage = %manifest.stage, difference, "replacing a record whose blobs are gone");
        self.backend.replace(&name, bytes).await?;
        Ok(manifest.clone())
    }

    /// The record of a stage of a run, whether or not its blobs are there. A damaged one is put aside,
    /// which the run remembers, and counts as none: the stage is then computed anew. One of another version
    /// is an error and stays.
    pub async fn manifest_or_quarantine(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Manifest>, JobsError> {
        let error = match self.manifest(stage).await {
            Err(JobsError::Data(error)) => error,
            other => return other,
        };
        tracing::warn!(%stage, error, "a damaged record is put aside");
        let unix_ms = self.quarantine(&manifest_name(stage)).await?;
        let unix_ms = u64::try_from(unix_ms).unwrap_or(0);
        let rewound = Repair {
            stage,
            key: None,
            lost: None,
            why: Why::CorruptManifest,
            needed_by: None,
            worker: String::new(),
            unix_ms,
        };
        self.record_repair(run, &rewound).await?;
        Ok(None)
    }

    /// The record of a stage of a run if its outputs are all there; a damaged record is put aside.
    pub async fn usable_manifest(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Manifest>, JobsError> {
        match self.manifest_or_quarantine(run, stage).await? {
            Some(manifest) if self.is_complete(&manifest).await? => Ok(Some(manifest)),
            _ => Ok(None),
        }
    }
}
