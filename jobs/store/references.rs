//! How many runs' results name each blob, remembered by a process from one look to the next.
//!
//! Records never change, so each is read once; what a run has let go is asked anew every time.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, OutputRecord, RunId, StageDigest};

/// The outputs of stages by run.
#[derive(Debug, Default)]
pub(crate) struct References {
    runs: BTreeMap<RunId, BTreeMap<StageDigest, BTreeMap<String, OutputRecord>>>,
    /// What runs name themselves.
    imports: BTreeMap<RunId, BTreeSet<ArtifactDigest>>,
}

impl References {
    /// Forgets runs and stages that are there no more.
    pub(crate) fn retain_runs(&mut self, runs: &[RunId]) {
        self.runs.retain(|run, _| runs.contains(run));
        self.imports.retain(|run, _| runs.contains(run));
    }

    pub(crate) fn knows_imports(&self, run: RunId) -> bool {
        self.imports.contains_key(&run)
    }

    pub(crate) fn set_imports(&mut self, run: RunId, imports: BTreeSet<ArtifactDigest>) {
        self.imports.insert(run, imports);
    }

    pub(crate) fn knows(&self, run: RunId, stage: StageDigest) -> bool {
        self.runs.get(&run).is_some_and(|stages| stages.contains_key(&stage))
    }

    pub(crate) fn add(
        &mut self,
        run: RunId,
        stage: StageDigest,
        outputs: BTreeMap<String, OutputRecord>,
    ) {
        self.runs.entry(run).or_default().insert(stage, outputs);
    }

    /// A stage's outputs, if they are known.
    pub(crate) fn outputs(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Option<&BTreeMap<String, OutputRecord>> {
        self.runs.get(&run)?.get(&stage)
    }

    /// Takes out of `blobs` what is held by a run that has let go only what `is_let_go` says.
    pub(crate) fn spare_held(
        &self,
        blobs: &mut BTreeMap<ArtifactDigest, u64>,
        is_let_go: impl Fn(RunId, StageDigest, &str) -> bool,
    ) {
        for (run, stages) in &self.runs {
            for (stage, outputs) in stages {
                for (name, record) in outputs {
                    if blobs.contains_key(&record.digest) && !is_let_go(*run, *stage, name) {
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
