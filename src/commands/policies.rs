//! The policies of a run that can be measured: its base and its newest one.
//!
//! Found in the run's index; nothing is computed for them.

use agrpo_jobs::Store;
use agrpo_spec::{ArtifactDigest, Run, StageKey, StageKind};

use crate::commands::store_option;
use crate::exit::Failure;

/// A policy of the run; iteration 0 is the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) iteration: u32,
    pub(super) artifact: ArtifactDigest,
}

impl Policy {
    /// What tables and charts call it.
    pub(super) fn name(self) -> String {
        match self.iteration {
            0 => "base".to_owned(),
            iteration => format!("iteration {iteration}"),
        }
    }
}

/// The base and, once there is an update, the newest policy.
pub(super) async fn policies(
    store: &Store,
    run: &Run,
    flag: Option<&str>,
) -> Result<Vec<Policy>, Failure> {
    let recorded = store.recorded_stages(run.id()).await?;
    let sft = &run.config().sft;
    let chunks = sft.steps.div_ceil(sft.steps_per_stage);
    let last = StageKey::new(StageKind::Sft, chunks - 1, 0);
    let updates = run.config().estimator.inner_updates;
    let ends = |key: &StageKey| key.kind == StageKind::Update && key.inner == updates;
    let newest = recorded.iter().rev().find(|(key, _)| ends(key));
    let base = recorded.get_key_value(&last);
    let mut found = vec![];
    for (&key, &stage) in base.into_iter().chain(newest) {
        let manifest = store.manifest(stage).await?;
        if let Some(artifact) = manifest.and_then(|manifest| manifest.output("policy")) {
            let iteration = if key == last { 0 } else { key.iteration };
            found.push(Policy { iteration, artifact });
        }
    }
    if found.first().is_some_and(|policy| policy.iteration == 0) {
        return Ok(found);
    }
    let done = recorded.keys().filter(|key| key.kind == StageKind::Sft).count();
    Err(Failure::usage(format!(
        "run {} ({}) has no base policy yet: {done} of its {chunks} sft stages are done",
        run.id().short(),
        run.config().name
    ))
    .hint("agrpo run FILE computes the rest; only the base is needed, not the whole run")
    .hint(format!("agrpo status{}", store_option(flag))))
}
