//! From the base to the newest policy: which update made which policy from which, every one by its name.

use agrpo_spec::{ArtifactDigest, Base, StageDigest, StageKey, StageKind};

use crate::story::Story;

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
pub fn lineage(story: &Story) -> Vec<Link> {
    let mut line = vec![];
    if let Base::Checkpoint(checkpoint) = story.run().base() {
        line.push(Link { key: None, stage: None, policy: checkpoint.folder });
    }
    for kind in [StageKind::Sft, StageKind::Update] {
        for (key, done) in story.stages().iter().filter(|(key, _)| key.kind == kind) {
            if let Some(&policy) = done.outputs.get("policy") {
                line.push(Link { key: Some(*key), stage: Some(done.stage), policy });
            }
        }
    }
    line
}
