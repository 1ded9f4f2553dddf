//! What a text on the command line names: a run, a stage, an artifact, or the policies of a run that can be measured.
//! Reads the store and changes nothing. A text that fits two things is refused; a stage that the run's index names and
//! whose record is missing is lost data, not work left to do.

use std::collections::BTreeMap;

use agrpo_fleet::Walk;
use agrpo_spec::{ArtifactDigest, Base, Manifest, Run, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{JobsError, Unreadable};

use super::prelude::{Exit, Failure, Session, Store, output};

/// Two digests never share this many digits by accident, so the first match is the only one.
const CERTAIN_DIGITS: usize = 12;

pub(super) enum Named {
    Run(RunId),
    Stage(StageDigest),
    Artifact(ArtifactDigest),
}

/// The one thing that the text names.
pub(super) async fn find(store: &Store, text: &str) -> Result<Named, Failure> {
    let mut matches = vec![];
    let (mut reasons, mut exit) = (vec![], Exit::Usage);
    let mut sort = |found: Result<Named, JobsError>| {
        match found {
            Ok(named) => matches.push(named),
            Err(JobsError::Invalid(reason)) => reasons.push(reason),
            // A whole digest names nothing, or the store is damaged.
            Err(JobsError::Data(reason)) => {
                exit = Exit::Data;
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
        Ok(text.len() >= CERTAIN_DIGITS && !matches.is_empty())
    };
    if !sort(store.records.resolve_run(text).await.map(Named::Run))?
        && !sort(store.records.resolve_stage(text).await.map(Named::Stage))?
    {
        sort(store.records.resolve_blob(text).await.map(Named::Artifact))?;
    }
    if matches.len() > 1 {
        let name = |named: &Named| match named {
            Named::Run(run) => format!("the run {}", run.short()),
            Named::Stage(stage) => format!("the stage {}", stage.short()),
            Named::Artifact(artifact) => format!("the artifact {}", artifact.short()),
        };
        let names = matches.iter().map(name).collect::<Vec<_>>().join(" and ");
        return Err(Failure::usage(format!("`{text}` fits {names}; give more digits")));
    }
    matches.pop().ok_or_else(|| {
        let message = format!("`{text}` is no run, stage or artifact that can be shown");
        let failure = Failure::new(exit, message);
        reasons.into_iter().fold(failure, Failure::hint)
    })
}

/// The run that a text names, if there is a text.
pub(super) async fn run(store: &Store, text: Option<&str>) -> Result<Option<RunId>, Failure> {
    Ok(match text {
        Some(text) => Some(store.records.resolve_run(text).await?),
        None => None,
    })
}

/// The manifest of a stage that the store is known to have.
pub(super) async fn manifest(store: &Store, stage: StageDigest) -> Result<Manifest, Failure> {
    store
        .records
        .manifest(stage)
        .await?
        .ok_or_else(|| Failure::data(format!("stages/{stage} is missing in {}", store.url())))
}

/// A policy of the run; iteration 0 is the base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) iteration: u32,
    pub(super) artifact: ArtifactDigest,
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

/// The run that a text names, its base and, once there is an update, its newest policy.
pub(super) async fn of_run(text: &str, session: &Session) -> Result<(Run, Vec<Policy>), Failure> {
    let store = session.existing_store().await?;
    let run = store.records.run(store.records.resolve_run(text).await?).await?;
    store.records.require_own_versions(run.id()).await?;
    let (done, _) = done_stages(&store, &run).await?;
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
        let lost = |why: &str| {
            let place = format!("stages/{stage} {why} in {}", store.url());
            Failure::data(format!("{key}: {place}, though the run's index says it is done"))
                .hint("agrpo run FILE, from the run's file, computes it again")
        };
        let manifest = store.records.manifest(stage).await?.ok_or_else(|| lost("is missing"))?;
        let artifact = manifest.output("policy").ok_or_else(|| lost("has no policy"))?;
        found.push(Policy { iteration: if key == last { 0 } else { key.iteration }, artifact });
    }
    if found.first().is_some_and(|policy| policy.iteration == 0) {
        return Ok((run, found));
    }
    let done = done.keys().filter(|key| key.kind == StageKind::Sft).count();
    Err(Failure::usage(format!(
        "{} has no base policy yet: {done} of its {chunks} sft stages are done",
        output::run(&run)
    ))
    .hint("agrpo run FILE computes the rest; only the base is needed, not the whole run")
    .hint(format!("agrpo status{}", session.store_option())))
}
