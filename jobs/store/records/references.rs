//! How many runs' results name each blob, remembered by a process from one look to the next.
//!
//! Records never change, so each is read once; what a run has dropped is asked anew every time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, OutputRecord, RunId, StageDigest, StageKey};
use tokio::time::Instant;

type Outputs = BTreeMap<String, OutputRecord>;

/// What is known of a run.
#[derive(Debug, Default)]
pub struct RunReferences {
    /// The place and the outputs of each stage that is known.
    pub stages: BTreeMap<StageDigest, (StageKey, Outputs)>,
    /// What the run names itself; `None` until it was looked up.
    pub imports: Option<BTreeSet<ArtifactDigest>>,
    /// Every stage is known: there is nothing new to list.
    pub is_complete: bool,
}

/// What is known of the blobs that runs name.
#[derive(Debug, Default)]
pub struct References {
    /// By run.
    pub runs: BTreeMap<RunId, RunReferences>,
    /// No look before this.
    next: Option<Instant>,
}

impl References {
    /// Whether the last look is long enough ago.
    pub fn is_time(&self) -> bool {
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// Leaves so long until the next look.
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

    /// Takes out of `blobs` what is held by a run that has let go only what `is_dropped` says.
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
