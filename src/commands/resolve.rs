//! What a text on the command line names: a run, a stage, an artifact, or the policies of a run that can be measured.
//! Reads the store and changes nothing. A text that fits two things is refused; a stage that the run's index names and
//! whose record is missing is lost data, not work left to do.

use std::collections::BTreeMap;

use agrpo_fleet::Walk;
use agrpo_spec::{ArtifactDigest, Base, Plan, Run, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{JobsError, Unreadable, paths};

use super::prelude::{Exit, Failure, Result, Session, Store, output};

/// Two digests never share this many digits by accident, so the first match is the only one.
const CERTAIN_DIGITS: usize = 12;

pub(super) enum Named {
    Run(RunId),
    Stage(StageDigest),
    Artifact(ArtifactDigest),
}

/// The one thing that the text names.
pub(super) async fn find(store: &Store, text: &str) -> Result<Named> {
    let (mut matches, mut reasons) = (vec![], vec![]);
    let mut sort = |found: Result<Named, JobsError>| {
        match found {
            Ok(named) => matches.push(named),
            // Data: a whole digest names nothing, or the store is damaged.
            Err(
                reason @ (JobsError::Invalid(_) | JobsError::Ambiguous(_) | JobsError::Data(_)),
            ) => reasons.push(reason),
            Err(error) => return Err(error),
        }
        Ok(text.len() >= CERTAIN_DIGITS && !matches.is_empty())
    };
    if !sort(store.records.resolve_run(text).await.map(Named::Run))?
        && !sort(store.records.resolve_stage(text).await.map(Named::Stage))?
    {
        sort(store.records.resolve_blob(text).await.map(Named::Artifact))?;
    }
    if let Some(several) = reasons.iter().find(|error| matches!(error, JobsError::Ambiguous(_))) {
        return Err(several.clone().into());
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
    matches.pop().ok_or_else(|| unknown(text, &reasons))
}

/// The error about a text that names nothing, with the reason that tells most.
fn unknown(text: &str, reasons: &[JobsError]) -> Failure {
    let data = reasons.iter().find(|error| matches!(error, JobsError::Data(_)));
    let exit = if data.is_some() { Exit::Data } else { Exit::Usage };
    let message = format!("`{text}` is no run, stage or artifact that can be shown");
    let reason = data.or(reasons.first()).map(ToString::to_string);
    Failure::new(exit, message).hint(reason.unwrap_or_default())
}

/// The run that a text names, if there is a text.
pub(super) async fn run(store: &Store, text: Option<&str>) -> Result<Option<RunId>> {
    Ok(match text {
        Some(text) => Some(store.records.resolve_run(text).await?),
        None => None,
    })
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
) -> Result<(BTreeMap<StageKey, StageDigest>, Vec<Unreadable>)> {
    let mut walk = Walk::new(run.clone());
    walk.advance(store).await?;
    let (mut done, lost) = (walk.stages().clone(), walk.unreadable());
    done.extend(lost.iter().map(|(key, (stage, _))| (*key, *stage)));
    Ok((done, lost.values().map(|(_, record)| record.clone()).collect()))
}

/// The run that a text names, its base and, once there is an update, its newest policy.
pub(super) async fn of_run(text: &str, session: &Session) -> Result<(Run, Vec<Policy>)> {
    let store = session.existing_store().await?;
    let run = store.records.run(store.records.resolve_run(text).await?).await?;
    store.records.require_own_versions(run.id()).await?;
    let (done, _) = done_stages(&store, &run).await?;
    let newest = Plan::last_update(&run, Plan::newest_iteration(&run, done.keys()));
    let mut found = match run.base() {
        Base::Scratch(..) => vec![],
        Base::Checkpoint(checkpoint) => vec![Policy { iteration: 0, artifact: checkpoint.folder }],
    };
    for key in Plan::last_chunk(&run).into_iter().chain([newest]) {
        let Some(&stage) = done.get(&key) else { continue };
        let lost = |why: &str| {
            let record = format!("{} {why} in {}", paths::manifest(stage), store.url());
            Failure::data(format!("{key}: {record}, though the run's index says it is done"))
                .hint("agrpo run FILE, from the run's file, computes it again")
        };
        let manifest = store.records.manifest(stage).await?.ok_or_else(|| lost("is missing"))?;
        let artifact = manifest.output("policy").ok_or_else(|| lost("has no policy"))?;
        found.push(Policy { iteration: if key == newest { key.iteration } else { 0 }, artifact });
    }
    if found.first().is_some_and(|policy| policy.iteration == 0) {
        return Ok((run, found));
    }
    let done = done.keys().filter(|key| key.kind == StageKind::Sft).count();
    Err(Failure::usage(format!(
        "{} has no base policy yet: {done} of its {} sft stages are done",
        output::run(&run),
        run.sft_chunks()
    ))
    .hint("agrpo run FILE computes the rest; only the base is needed, not the whole run")
    .hint(format!("agrpo status{}", session.store_option())))
}
