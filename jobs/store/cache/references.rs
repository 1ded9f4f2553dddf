//! How many runs' results name each blob, remembered by a process from one look to the next.
//!
//! Records never change, so each is read once; what a run has dropped is asked anew every time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, OutputRecord, RunId, StageDigest, StageKey};
use tokio::time::Instant;

type Outputs = BTreeMap<String, OutputRecord>;

/// The places and outputs of stages by run.
#[derive(Debug, Default)]
pub struct References {
    runs: BTreeMap<RunId, BTreeMap<StageDigest, (StageKey, Outputs)>>,
    /// What runs name themselves.
    imports: BTreeMap<RunId, BTreeSet<ArtifactDigest>>,
    /// Runs of which every stage is known: there is nothing new to list.
    complete: BTreeSet<RunId>,
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

    /// Forgets runs and stages that are there no more.
    pub fn retain_runs(&mut self, runs: &[RunId]) {
        self.runs.retain(|run, _| runs.contains(run));
        self.imports.retain(|run, _| runs.contains(run));
        self.complete.retain(|run| runs.contains(run));
    }

    /// Whether every stage of a run is known.
    pub fn is_complete(&self, run: RunId) -> bool {
        self.complete.contains(&run)
    }

    /// Notes that every stage of a run is known.
    pub fn set_complete(&mut self, run: RunId) {
        self.complete.insert(run);
    }

    /// Whether it is known what a run names itself.
    pub fn knows_imports(&self, run: RunId) -> bool {
        self.imports.contains_key(&run)
    }

    /// Notes what a run names itself.
    pub fn set_imports(&mut self, run: RunId, imports: BTreeSet<ArtifactDigest>) {
        self.imports.insert(run, imports);
    }

    /// Whether a stage of a run is known.
    pub fn knows(&self, run: RunId, stage: StageDigest) -> bool {
        self.runs.get(&run).is_some_and(|stages| stages.contains_key(&stage))
    }

    /// Notes the place and the outputs of a stage of a run.
    pub fn add(&mut self, run: RunId, key: StageKey, stage: StageDigest, outputs: Outputs) {
        self.runs.entry(run).or_default().insert(stage, (key, outputs));
    }

    /// The place of a run's stage, and the places of all that are known of the run.
    pub fn places(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Option<(StageKey, impl Iterator<Item = &StageKey>)> {
        let stages = self.runs.get(&run)?;
        Some((stages.get(&stage)?.0, stages.values().map(|(key, _)| key)))
    }

    /// The stages that name one of these blobs.
    pub fn naming(&self, blobs: &BTreeMap<ArtifactDigest, u64>) -> Vec<(RunId, StageDigest)> {
        let mut found = vec![];
        for (run, stages) in &self.runs {
            let names = |outputs: &Outputs| {
                outputs.values().any(|record| blobs.contains_key(&record.digest))
            };
            let stages = stages.iter().filter(|(_, (_, outputs))| names(outputs));
            found.extend(stages.map(|(stage, _)| (*run, *stage)));
        }
        found
    }

    /// Takes out of `blobs` what is held by a run that has let go only what `is_dropped` says.
    pub fn spare_held(
        &self,
        blobs: &mut BTreeMap<ArtifactDigest, u64>,
        is_dropped: impl Fn(RunId, StageDigest, &str) -> bool,
    ) {
        for (run, stages) in &self.runs {
            for (stage, (_, outputs)) in stages {
                for (name, record) in outputs {
                    if blobs.contains_key(&record.digest) && !is_dropped(*run, *stage, name) {
                        blobs.remove(&record.digest);
                    }
                }
            }
        }
        for digest in self.imports.values().flatten() {
            blobs.remove(digest);
        }
    }
}
