//! Which runs' results name each blob, remembered by a process from one pass of retention to the next.
//!
//! Manifests never change, so each is read once; the notes of deleted outputs are read in every pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, OutputRecord, RunId, StageDigest, StageKey};
use tokio::time::Instant;

type Outputs = BTreeMap<String, OutputRecord>;

/// What is known of a run.
#[derive(Debug, Default)]
pub struct RunReferences {
    /// The place in the run and the outputs of each stage that is known.
    pub stages: BTreeMap<StageDigest, (StageKey, Outputs)>,
    /// The blobs that the run file names; `None` until they were read.
    pub imports: Option<BTreeSet<ArtifactDigest>>,
    /// Every stage is known: there is nothing new to list.
    pub is_complete: bool,
}

/// What is known of the blobs that runs name.
#[derive(Debug, Default)]
pub struct References {
    /// By run.
    pub runs: BTreeMap<RunId, RunReferences>,
    /// No pass before this.
    next: Option<Instant>,
}

impl References {
    /// Whether the next pass is due.
    pub fn is_time(&self) -> bool {
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// Sets the pause until the next pass.
    pub fn rest(&mut self, pause: Duration) {
        self.next = Some(Instant::now() + pause);
    }

    /// Every output that is known, with its run, its stage and its name.
    fn outputs(&self) -> impl Iterator<Item = (RunId, StageDigest, &str, ArtifactDigest)> {
        self.runs.iter().flat_map(|(run, known)| {
            known.stages.iter().flat_map(|(stage, (_, outputs))| {
                let named = outputs.iter();
                named.map(|(name, record)| (*run, *stage, name.as_str(), record.digest))
            })
        })
    }

    /// The stages that name one of these blobs.
    pub fn naming(&self, blobs: &BTreeMap<ArtifactDigest, u64>) -> BTreeSet<(RunId, StageDigest)> {
        let naming = self.outputs().filter(|(.., digest)| blobs.contains_key(digest));
        naming.map(|(run, stage, ..)| (run, stage)).collect()
    }

    /// Removes from `blobs` those that a run still holds. A run no longer holds the outputs for which `is_dropped` is
    /// true.
    pub fn spare_held(
        &self,
        blobs: &mut BTreeMap<ArtifactDigest, u64>,
        is_dropped: impl Fn(RunId, StageDigest, &str) -> bool,
    ) {
        for (run, stage, name, digest) in self.outputs() {
            if blobs.contains_key(&digest) && !is_dropped(run, stage, name) {
                blobs.remove(&digest);
            }
        }
        for digest in self.runs.values().filter_map(|known| known.imports.as_ref()).flatten() {
            blobs.remove(digest);
        }
    }
}
