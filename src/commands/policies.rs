//! The policies of a run that can be measured: its base and its newest one.
//!
//! Follows the run's plan along its records and computes nothing. A stage that the run's index names and whose
//! record is missing is lost data, not work left to do.

use std::collections::BTreeMap;

use agrpo_fleet::Walk;
use agrpo_spec::{ArtifactDigest, Base, Manifest, Run, StageDigest, StageKey, StageKind};
use agrpo_store::{Store, Unreadable};

use crate::exit::{Exit, Failure};
use crate::session::Session;

/// A policy of the run; iteration 0 is the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) iteration: u32,
    pub(super) artifact: ArtifactDigest,
}

impl Policy {
    /// Its name in tables and charts.
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
    let message =
        format!("{key}: stages/{stage} {why} in {url}, though the run's index says it is done");
    Failure::new(Exit::Data, message).hint("agrpo run FILE, from the run's file, computes it again")
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
    session: &Session,
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
    .hint(format!("agrpo status{}", session.store_option())))
}
