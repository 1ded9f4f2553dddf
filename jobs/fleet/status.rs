//! Where runs stand, for people and for `--json`.
//!
//! A policy or an accuracy is named only where the run's plan leads to it along its records (`walk.rs`): no
//! index and no note decides what is shown. That takes one read a stage; the next look reads what is new. A record
//! that cannot be read is named beside what the others say. Neither checks blobs nor mends anything.

use std::collections::BTreeMap;

use agrpo_spec::{ArtifactDigest, Plan, Run, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{Failure, Hold, JobsError, Remedy, Store, Unreadable};
use serde::Serialize;

use crate::{Result, planning::Walk, planning::steps::readable};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Stages are left, and none has failed.
    Running,
    /// Paused on request.
    Paused,
    /// Cancelled on request.
    Cancelled,
    /// A stage has failed for good.
    Failed,
    /// Everything is computed.
    Done,
    /// The record of its state cannot be read.
    Unreadable,
}

impl RunState {
    /// By what its records say; `is_unknown` where the one that holds it cannot be read.
    pub fn new(is_done: bool, is_unknown: bool, held: Option<Hold>, has_failed: bool) -> Self {
        match held {
            _ if is_done => Self::Done,
            _ if is_unknown => Self::Unreadable,
            Some(Hold::Cancelled) => Self::Cancelled,
            _ if has_failed => Self::Failed,
            Some(Hold::Paused) => Self::Paused,
            None => Self::Running,
        }
    }
}

/// Shares of held-out problems solved, at the first of the run's evaluation steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AccuracyStatus {
    /// Before reinforcement learning.
    pub base: Option<f64>,
    /// Of the newest evaluated policy.
    pub latest: Option<f64>,
}

/// Counts of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageCounts {
    /// With a result.
    pub done: u64,
    /// Failed for good.
    pub failed: u64,
    /// Computed by more than one worker, though one result would have done.
    pub computed_twice: u64,
    /// Computed again because a result was missing or corrupt.
    pub rewound: u64,
}

/// The first stage, by place in the run, that failed for good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedAt {
    /// Its place in the run.
    pub key: StageKey,
    /// Its name.
    pub stage: StageDigest,
    /// What the last attempt said, in one line.
    pub error: String,
    /// Where another try may help.
    pub remedy: Remedy,
    /// How often it was begun.
    pub attempts: u32,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    /// The run's full id.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: RunState,
    /// Updates done.
    pub iteration: u32,
    /// Updates asked for.
    pub iterations: u32,
    /// The newest policy.
    pub policy: Option<ArtifactDigest>,
    /// How good it is.
    pub accuracy: AccuracyStatus,
    /// How much is done.
    pub stages: StageCounts,
    /// What it failed at, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<FailedAt>,
    /// Why workers of this program leave it alone, if stages are left and they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
    /// Why its state is unknown, if so. Without the run's own record its row says nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Its other records that cannot be read; those of stages count as done no more, though nothing else may
    /// need them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable_records: Vec<Unreadable>,
}

/// Where a run stands, or all runs by id. Data error if a record that says what the one is doing is corrupt;
/// among all runs, a run of unknown state has a row with the reason.
pub async fn status(store: &Store, run: Option<RunId>) -> Result<Vec<RunStatus>> {
    let mut looks = Looks::default();
    let Some(run) = run else { return looks.all(store).await };
    let status = looks.one(store, run).await?;
    match status.unreadable {
        Some(why) => Err(JobsError::Data(why)),
        None => Ok(vec![status]),
    }
}

/// Where runs stand, look after look: a stage's record that was read once is not read again.
#[derive(Debug, Default)]
pub struct Looks(BTreeMap<RunId, Seen>);

impl Looks {
    /// All runs by id.
    pub async fn all(&mut self, store: &Store) -> Result<Vec<RunStatus>> {
        let runs = store.records.runs().await?;
        self.0.retain(|id, _| runs.binary_search(id).is_ok());
        let mut found = vec![];
        for id in runs {
            found.push(match self.one(store, id).await {
                // It speaks of the server, not of one run.
                Err(error @ (JobsError::Unavailable(_) | JobsError::Invalid(_)))
                    if store.objects.is_remote() =>
                {
                    return Err(error);
                }
                Err(error) => unreadable(store, id, &error).await,
                Ok(status) => status,
            });
        }
        Ok(found)
    }

    async fn one(&mut self, store: &Store, id: RunId) -> Result<RunStatus> {
        let run = store.records.run(id).await?;
        let new =
            || Seen { walk: Walk::new(run), policies: BTreeMap::new(), accuracy: BTreeMap::new() };
        let seen = self.0.entry(id).or_insert_with(new);
        seen.read_on(store).await?;
        row(store, seen).await
    }
}

/// The row of a run of which nothing else is known.
async fn unreadable(store: &Store, id: RunId, error: &JobsError) -> RunStatus {
    let run = store.records.run(id).await.ok();
    let config = run.as_ref().map(Run::config);
    RunStatus {
        run: id,
        name: config.map(|config| config.name.clone()).unwrap_or_default(),
        state: RunState::Unreadable,
        iteration: 0,
        iterations: config.map_or(0, |config| config.training.iterations),
        policy: None,
        accuracy: AccuracyStatus { base: None, latest: None },
        stages: StageCounts::default(),
        failed_at: None,
        foreign: None,
        unreadable: Some(error.to_string()),
        unreadable_records: vec![],
    }
}

async fn row(store: &Store, seen: &Seen) -> Result<RunStatus> {
    let (run, walk) = (seen.walk.run(), &seen.walk);
    let (id, config) = (run.id(), run.config());
    let (places, lost) = (walk.places(), walk.unreadable());
    let newest = places.iter().rev().find(|key| key.makes_policy());
    let iterations = config.training.iterations;
    let iteration = Plan::iterations_done(run, &places).last().copied().unwrap_or(0);
    let is_done = iteration == iterations
        && (0..=iterations)
            .filter(|&iteration| run.is_evaluated(iteration))
            .all(|iteration| places.contains(&StageKey::evaluation(iteration)));

    let (mut failures, damaged) = store.records.readable_failures(id).await?;
    failures.retain(|failure| !seen.has(failure.stage));
    let failed = failures.len() + damaged.iter().filter(|record| !seen.has_made(record)).count();
    let (control, unheard) = store.records.readable_control(id).await?;
    let held = control.map(|control| control.state);
    let state = RunState::new(is_done, unheard.is_some(), held, failed > 0);
    let foreign = match state {
        RunState::Done | RunState::Cancelled | RunState::Unreadable => None,
        _ => incompatible(store, id, newest.and_then(|newest| lost.get(newest))).await?,
    };
    let unreadable = unheard.clone().filter(|_| !is_done).map(|record| record.why);
    let stages = lost.values().map(|(_, record)| record.clone());
    Ok(RunStatus {
        run: id,
        name: config.name.clone(),
        state,
        iteration,
        iterations,
        policy: newest.and_then(|newest| seen.policies.get(newest)).copied(),
        accuracy: AccuracyStatus {
            base: seen.accuracy.get(&0).copied(),
            latest: seen.accuracy.last_key_value().map(|(_, share)| *share),
        },
        stages: StageCounts {
            done: (places.len() - lost.len()) as u64,
            failed: failed as u64,
            computed_twice: store.records.computed_twice(id).await?,
            rewound: store.records.repair_count(id).await?,
        },
        failed_at: failures.into_iter().next().map(FailedAt::from),
        foreign,
        unreadable,
        unreadable_records: stages.chain(damaged).chain(unheard.filter(|_| is_done)).collect(),
    })
}

impl From<Failure> for FailedAt {
    fn from(failure: Failure) -> Self {
        let Failure { key, stage, error, remedy, attempts, .. } = failure;
        Self { key, stage, error, remedy, attempts }
    }
}

/// Why workers of this program leave a run alone: its versions, or the newest policy's record, which they go on from.
async fn incompatible(
    store: &Store,
    run: RunId,
    newest: Option<&(StageDigest, Unreadable)>,
) -> Result<Option<String>> {
    let why = readable(store.records.incompatible_versions(run).await)?;
    // What is damaged is computed anew.
    let newer = newest.filter(|(_, record)| record.is_incompatible);
    let newer = newer.map(|(_, record)| record.why.clone());
    Ok(why.map_or_else(|error| Some(error.to_string()), |why| why.or(newer)))
}

/// What was read of a run's own stages.
#[derive(Debug)]
struct Seen {
    walk: Walk,
    /// The policies of updates and chunks of fine-tuning.
    policies: BTreeMap<StageKey, ArtifactDigest>,
    /// By iteration.
    accuracy: BTreeMap<u32, f64>,
}

impl Seen {
    fn has(&self, stage: StageDigest) -> bool {
        self.walk.stages().values().any(|own| *own == stage)
    }

    /// Whether the stage of a failure record has a result.
    fn has_made(&self, failure: &Unreadable) -> bool {
        let stage = failure.object.rsplit('/').next().and_then(|stage| stage.parse().ok());
        stage.is_some_and(|stage| self.has(stage))
    }

    async fn read_on(&mut self, store: &Store) -> Result<()> {
        for (key, manifest) in self.walk.advance(store).await? {
            if key.makes_policy() {
                self.policies.extend(manifest.output("policy").map(|policy| (key, policy)));
            } else if key.kind == StageKind::Evaluation {
                let share = manifest.metrics.get("accuracy");
                self.accuracy.extend(share.map(|share| (key.iteration, *share)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
