//! What a text on the command line names: a run, a stage, an artifact, or the policies of a run that can be measured.
//! Reads the store and changes nothing. A text that fits two things is refused; a stage that the run's index names and
//! whose record is missing is lost data, not work left to do.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_fleet::Walk;
use agrpo_spec::{ArtifactDigest, Base, Plan, Run, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{JobsError, Unreadable, paths};

use super::prelude::{Exit, Failure, Result, Session, Store, output};
use crate::args::PolicyChoice;

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
    policies(text, &[PolicyChoice::Base, PolicyChoice::Latest], session).await
}

/// The run that a text names, and those of its policies that are meant, from the base on. Refuses a run without a base,
/// and a policy that is not there.
pub(super) async fn policies(
    text: &str,
    chosen: &[PolicyChoice],
    session: &Session,
) -> Result<(Run, Vec<Policy>)> {
    let store = session.existing_store().await?;
    let run = store.records.run(store.records.resolve_run(text).await?).await?;
    store.records.require_own_versions(run.id()).await?;
    let (done, _) = done_stages(&store, &run).await?;
    let trained = Plan::iterations_done(&run, done.keys());
    let newest = trained.last().copied().unwrap_or(0);
    let known =
        Known { dropped: store.records.stages_with_dropped(run.id()).await?, store, run, done };
    let base = known.policy(0).await?;
    let base = base.ok_or_else(|| known.has_no_base(session))?;
    let mut found = BTreeMap::new();
    for choice in chosen {
        let (wanted, all): (Vec<u32>, bool) = match choice {
            PolicyChoice::Base => (vec![0], false),
            PolicyChoice::Latest => (vec![newest], false),
            PolicyChoice::Number(number) => (vec![*number], false),
            PolicyChoice::All => ([0].into_iter().chain(trained.iter().copied()).collect(), true),
            PolicyChoice::Best => (trained.iter().copied().collect(), true),
        };
        for iteration in wanted {
            let policy = if iteration == 0 { Some(base) } else { known.policy(iteration).await? };
            let is_there = match policy {
                Some(policy) => known.holds(policy).await?,
                None => false,
            };
            match policy {
                Some(policy) if is_there => drop(found.insert(iteration, policy)),
                _ if all => {}
                policy => return Err(known.has_not(iteration, newest, policy.is_some())),
            }
        }
    }
    Ok((known.run, found.into_values().collect()))
}

/// A run with its finished stages.
struct Known {
    store: Store,
    run: Run,
    done: BTreeMap<StageKey, StageDigest>,
    /// Those of which retention deleted outputs.
    dropped: BTreeSet<StageDigest>,
}

impl Known {
    /// The stage that made the policy after so many iterations.
    fn stage(&self, iteration: u32) -> Option<(StageKey, StageDigest)> {
        let key = match iteration {
            0 => Plan::last_chunk(&self.run)?,
            _ => Plan::last_update(&self.run, iteration),
        };
        self.done.get(&key).map(|&stage| (key, stage))
    }

    /// The policy after so many iterations, also where retention deleted it; `None` if it was never made.
    async fn policy(&self, iteration: u32) -> Result<Option<Policy>> {
        if let (0, Base::Checkpoint(checkpoint)) = (iteration, self.run.base()) {
            return Ok(Some(Policy { iteration, artifact: checkpoint.folder }));
        }
        let Some((key, stage)) = self.stage(iteration) else { return Ok(None) };
        let lost = |why: &str| {
            let record = format!("{} {why} in {}", paths::manifest(stage), self.store.url());
            Failure::data(format!("{key}: {record}, though the run's index says it is done"))
                .hint("agrpo run FILE, from the run's file, computes it again")
        };
        let manifest = self.store.records.manifest(stage).await?;
        let manifest = manifest.ok_or_else(|| lost("is missing"))?;
        let artifact = manifest.output("policy").ok_or_else(|| lost("has no policy"))?;
        Ok(Some(Policy { iteration, artifact }))
    }

    /// Whether retention has left it, or it was computed again.
    async fn holds(&self, Policy { iteration, artifact }: Policy) -> Result<bool> {
        let stage = self.stage(iteration).map(|(_, stage)| stage);
        let is_whole = stage.is_none_or(|stage| !self.dropped.contains(&stage));
        Ok(is_whole || self.store.cas.has(artifact).await?)
    }

    fn has_not(&self, iteration: u32, newest: u32, is_deleted: bool) -> Failure {
        let run = output::run(&self.run);
        match self.stage(iteration).filter(|_| is_deleted) {
            Some((_, stage)) => Failure::data(format!(
                "--iteration {iteration}: the retention of {run} has deleted this policy; `all` is those that are left"
            ))
            .hint(format!("agrpo replay {} --rewind computes it again", stage.short())),
            None => Failure::usage(format!(
                "--iteration {iteration}: {run} has come to iteration {newest}; expected base, latest, all, best or 0 to {newest}"
            )),
        }
    }

    fn has_no_base(&self, session: &Session) -> Failure {
        let done = self.done.keys().filter(|key| key.kind == StageKind::Sft).count();
        Failure::usage(format!(
            "{} has no base policy yet: {done} of its {} sft stages are done",
            output::run(&self.run),
            self.run.sft_chunks()
        ))
        .hint("agrpo run FILE computes the rest; only the base is needed, not the whole run")
        .hint(format!("agrpo status{}", session.store_option()))
    }
}
