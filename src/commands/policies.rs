//! The policies of a run that can be measured: its base and its newest one.
//!
//! Found where the run's plan leads to them along its records; nothing is computed for them. A stage that the
//! run's index names and whose record is gone is lost data, not work to be done.

use std::collections::BTreeMap;

use agrpo_jobs::{Store, Unreadable, Walk};
use agrpo_spec::{ArtifactDigest, Base, Manifest, Run, StageDigest, StageKey, StageKind};

use crate::commands::store_option;
use crate::exit::{Exit, Failure};

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

/// The record of a stage that is done.
pub(super) async fn recorded(
    store: &Store,
    key: StageKey,
    stage: StageDigest,
) -> Result<Manifest, Failure> {
    store.manifest(stage).await?.ok_or_else(|| lost(store, key, stage, "is missing"))
}

fn lost(store: &Store, key: StageKey, stage: StageDigest, why: &str) -> Failure {
    let url = store.url();
    let told =
        format!("{key}: stages/{stage} {why} in {url}, though the run's index says it is done");
    Failure::new(Exit::Data, told).hint("agrpo run FILE, from the run's file, computes it again")
}

/// The run's own stages that are done, and those of their records that cannot be read.
pub(super) async fn done_stages(
    store: &Store,
    run: &Run,
) -> Result<(BTreeMap<StageKey, StageDigest>, Vec<Unreadable>), Failure> {
    let mut walk = Walk::new(run.clone());
    walk.advance(store).await?;
    let (mut done, lost) = (walk.stages().clone(), walk.unreadable());
    done.extend(lost.iter().map(|(key, (stage, _))| (*key, *stage)));
    Ok((done, lost.values().map(|(_, record)| record.clone()).collect()))
}

/// The base and, once there is an update, the newest policy.
pub(super) async fn policies(
    store: &Store,
    run: &Run,
    flag: Option<&str>,
) -> Result<Vec<Policy>, Failure> {
    store.require_own_versions(run.id()).await?;
    let (done, _) = done_stages(store, run).await?;
    let chunks = run.sft_chunks();
    let last = StageKey::new(StageKind::Sft, chunks.saturating_sub(1), 0);
    let updates = run.config().estimator.inner_updates;
    let ends = |key: &StageKey| key.kind == StageKind::Update && key.inner == updates;
    let newest = done.iter().rev().find(|(key, _)| ends(key));
    let base = done.get_key_value(&last);
    let mut found = match run.base() {
        Base::Scratch(..) => vec![],
        Base::Checkpoint(checkpoint) => vec![Policy { iteration: 0, artifact: checkpoint.folder }],
    };
    for (&key, &stage) in base.into_iter().chain(newest) {
        let manifest = recorded(store, key, stage).await?;
        let none = || lost(store, key, stage, "has no policy");
        let artifact = manifest.output("policy").ok_or_else(none)?;
        found.push(Policy { iteration: if key == last { 0 } else { key.iteration }, artifact });
    }
    if found.first().is_some_and(|policy| policy.iteration == 0) {
        return Ok(found);
    }
    let done = done.keys().filter(|key| key.kind == StageKind::Sft).count();
    Err(Failure::usage(format!(
        "run {} ({}) has no base policy yet: {done} of its {chunks} sft stages are done",
        run.id().short(),
        run.config().name
    ))
    .hint("agrpo run FILE computes the rest; only the base is needed, not the whole run")
    .hint(format!("agrpo status{}", store_option(flag))))
}
