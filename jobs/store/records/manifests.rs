//! Manifests: the record of a finished stage, created once.
//!
//! A manifest counts only if every blob that it names is stored in full length. Two results of one stage must be the
//! same: where they differ nothing is overwritten, and both digests are reported.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::record::{Opened, RecordError};
use agrpo_spec::{Manifest, OutputRecord, RunId, StageDigest};
use futures::future::try_join_all;

use super::json::{Record, Records, named};
use super::repairs::{Repair, Why};
use crate::{JobsError, Result, paths};

impl Record for Manifest {
    const REMEDY: &'static str =
        "agrpo run FILE --repair, with the run's file, computes the stage again";

    fn seal(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn open(name: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError> {
        Self::open(named(name)?, bytes)
    }
}

/// A stage's record, if there is one that counts.
type Recorded = Result<Option<Manifest>>;

/// The first output on which two manifests of a stage disagree, in words for people.
fn disagreement(ours: &Manifest, theirs: &Manifest) -> Option<String> {
    let names: BTreeSet<_> = ours.outputs.keys().chain(theirs.outputs.keys()).collect();
    let differs = |name: &&String| ours.outputs.get(*name) != theirs.outputs.get(*name);
    let name = names.into_iter().find(differs)?;
    let show = |manifest: &Manifest| match manifest.output(name) {
        Some(digest) => digest.to_string(),
        None => "nothing".to_owned(),
    };
    let (ours, theirs) = (show(ours), show(theirs));
    Some(format!("output `{name}` is recorded as {theirs}, computed now as {ours}"))
}

impl Records {
    /// The record of a stage, whether or not its blobs exist. Data error if it is corrupt.
    pub async fn manifest(&self, stage: StageDigest) -> Recorded {
        self.get(&paths::manifest(stage)).await
    }

    /// Every stage that has a record, sorted.
    pub async fn all_stages(&self) -> Result<Vec<StageDigest>> {
        let mut stages: Vec<StageDigest> = self.list("stages").await?;
        stages.sort_unstable();
        Ok(stages)
    }

    /// The record of a stage whose outputs all exist. `None` where it has to be computed.
    pub async fn complete_manifest(&self, stage: StageDigest) -> Recorded {
        let found = self.manifest(stage).await?;
        self.if_complete(found, None).await
    }

    async fn if_complete(&self, found: Option<Manifest>, run: Option<RunId>) -> Recorded {
        match found {
            Some(manifest) if self.is_complete(&manifest, run).await? => Ok(Some(manifest)),
            _ => Ok(None),
        }
    }

    /// Whether all outputs of a stage exist, apart from those that `run` dropped.
    async fn is_complete(&self, manifest: &Manifest, run: Option<RunId>) -> Result<bool> {
        let stage = manifest.stage;
        let sizes: BTreeMap<_, _> =
            manifest.outputs.values().map(|record| (record.digest, record.size)).collect();
        let looks = sizes.into_iter().map(|(digest, size)| async move {
            let found = self.objects.size(&paths::blob(digest)).await?;
            Ok::<_, JobsError>((found != Some(size)).then_some((digest, found)))
        });
        let absent: BTreeMap<_, _> = try_join_all(looks).await?.into_iter().flatten().collect();
        // Most results are complete: their notes need not be read.
        let dropped = match run {
            Some(run) if !absent.is_empty() => self.dropped(run, stage).await?,
            _ => None,
        };
        let mut is_complete = true;
        for (name, record) in &manifest.outputs {
            let Some(found) = absent.get(&record.digest) else { continue };
            if dropped.as_ref().is_none_or(|dropped| dropped.outputs.get(name) != Some(record)) {
                let OutputRecord { digest, size } = record;
                tracing::warn!(%stage, %digest, size, ?found, "a blob of a result is missing or truncated");
                is_complete = false;
            }
        }
        Ok(is_complete)
    }

    /// Publishes a finished stage whose outputs are stored; returns the record that exists then, maybe another
    /// worker's. Data error if that one names other outputs. A record whose blobs are missing is replaced.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Manifest> {
        let name = paths::manifest(manifest.stage);
        let Some(found) = self.create(&name, manifest).await? else { return Ok(manifest.clone()) };
        // A record of an old version has no seal to check: two reads have to agree on it.
        if !found.is_sealed && self.objects.read(&name).await?.as_ref() != Some(&found.bytes) {
            return Err(self.objects.unsteady(&name));
        }
        let standing = found.value;
        let Some(difference) = disagreement(manifest, &standing) else {
            // Written again to renew its date: a gc may have found it old and unreachable, and must not delete it now.
            self.objects.replace(&name, found.bytes).await?;
            return Ok(standing);
        };
        if self.is_complete(&standing, None).await? {
            return Err(JobsError::data(format!(
                "{name} in {}: {difference}; the same stage gave two results: compare the \
                 environments, and delete the record to accept the new one",
                self.objects.url()
            )));
        }
        tracing::warn!(stage = %manifest.stage, difference, "replacing a manifest whose blobs are missing");
        self.objects.replace(&name, manifest.seal().into()).await?;
        Ok(manifest.clone())
    }

    /// The record of a stage of a run, whether or not its blobs exist. A damaged one is quarantined, which is recorded
    /// as a repair of the run, and counts as none; one of another version is an error and stays.
    pub async fn manifest_or_quarantine(&self, run: RunId, stage: StageDigest) -> Recorded {
        let error = match self.manifest(stage).await {
            Err(JobsError::Data(error)) => error,
            other => return other,
        };
        tracing::warn!(%stage, error = error.as_str(), "a record is damaged");
        let unix_ms = self.objects.quarantine(&paths::manifest(stage)).await?;
        let unix_ms = u64::try_from(unix_ms).unwrap_or(0);
        let repair = Repair {
            stage,
            key: None,
            lost: None,
            why: Why::CorruptManifest,
            needed_by: None,
            worker: String::new(),
            unix_ms,
        };
        self.record_repair(run, &repair).await?;
        Ok(None)
    }

    /// The record of a stage of a run if its outputs all exist. A damaged record is quarantined.
    pub async fn usable_manifest(&self, run: RunId, stage: StageDigest) -> Recorded {
        let found = self.manifest_or_quarantine(run, stage).await?;
        self.if_complete(found, None).await
    }

    /// The record of a stage of a run whose outputs all exist or were dropped by the run. A damaged one is quarantined.
    pub async fn settled_manifest(&self, run: RunId, stage: StageDigest) -> Recorded {
        let found = self.manifest_or_quarantine(run, stage).await?;
        self.if_complete(found, Some(run)).await
    }
}
