//! The lineage of a policy: from the base, every stage that made a policy out of another, by digest.

use agrpo_spec::{ArtifactDigest, Base, StageDigest, StageKey, StageKind};

use crate::history::RunHistory;

/// One step of the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Which stage it was, in the plan's words; none for what was imported.
    pub key: Option<StageKey>,
    /// The stage.
    pub stage: Option<StageDigest>,
    /// The policy that it made.
    pub policy: ArtifactDigest,
}

/// The line, from the base on; it breaks off where a record could not be read.
pub fn lineage(history: &RunHistory) -> Vec<Link> {
    let mut line = vec![];
    if let Base::Checkpoint(checkpoint) = history.run().base() {
        line.push(Link { key: None, stage: None, policy: checkpoint.folder });
    }
    for kind in [StageKind::Sft, StageKind::Update] {
        for (key, done) in history.stages().iter().filter(|(key, _)| key.kind == kind) {
            if let Some(&policy) = done.outputs.get("policy") {
                line.push(Link { key: Some(*key), stage: Some(done.stage), policy });
            }
        }
    }
    line
}
