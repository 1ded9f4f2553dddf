//! Where runs stand, for people and for `--json`.
//!
//! A policy or an accuracy is named only where the run's plan leads to it along its records (`walk.rs`): no
//! index and no note decides what is shown. That takes one read a stage, and who looks again reads what is
//! new. A record that cannot be read is named beside what the others say. Only looks: it neither checks blobs
//! nor mends anything.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, Run, RunId, StageDigest, StageKey, StageKind};
use serde::Serialize;

use crate::planning::walk::Walk;
use agrpo_store::{Failure, Hold, Store, Unreadable};
use agrpo_store::{JobsError, Remedy};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Stages are left, and none has failed.
    Running,
    /// Held back on request.
    Paused,
    /// Given up on request.
    Cancelled,
    /// A stage has failed for good.
    Failed,
    /// Everything is computed.
    Done,
    /// The record that says so cannot be read.
    Unreadable,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
/// among all runs, one of unknown state says so in its row.
pub async fn status(store: &Store, run: Option<RunId>) -> Result<Vec<RunStatus>, JobsError> {
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
    pub async fn all(&mut self, store: &Store) -> Result<Vec<RunStatus>, JobsError> {
        let runs = store.runs().await?;
        self.0.retain(|id, _| runs.binary_search(id).is_ok());
        let mut found = vec![];
        for id in runs {
            found.push(match self.one(store, id).await {
                // A server that is away is no matter of one run.
                Err(error @ (JobsError::Unavailable(_) | JobsError::Invalid(_)))
                    if store.is_remote() =>
                {
                    return Err(error);
                }
                Err(error) => unreadable(store, id, &error).await,
                Ok(status) => status,
            });
        }
        Ok(found)
    }

    async fn one(&mut self, store: &Store, id: RunId) -> Result<RunStatus, JobsError> {
        let run = store.run(id).await?;
        let seen = self.0.entry(id).or_insert_with(|| Seen::new(run));
        seen.read_on(store).await?;
        row(store, seen).await
    }
}

/// The row of a run of which nothing else is known.
async fn unreadable(store: &Store, id: RunId, error: &JobsError) -> RunStatus {
    let run = store.run(id).await.ok();
    let config = run.as_ref().map(Run::config);
    RunStatus {
        run: id,
        name: config.map(|config| config.name.clone()).unwrap_or_default(),
        state: RunState::Unreadable,
        iteration: 0,
        iterations: config.map_or(0, |config| config.training.iterations),
        policy: None,
        accuracy: AccuracyStatus { base: None, latest: None },
        stages: StageCounts { done: 0, failed: 0, computed_twice: 0, rewound: 0 },
        failed_at: None,
        foreign: None,
        unreadable: Some(error.to_string()),
        unreadable_records: vec![],
    }
}

async fn row(store: &Store, seen: &Seen) -> Result<RunStatus, JobsError> {
    let (run, walk) = (seen.walk.run(), &seen.walk);
    let (id, config) = (run.id(), run.config());
    let (places, lost) = (walk.places(), walk.unreadable());
    let newest = newest_of(&places);
    let iterations = config.training.iterations;
    // An iteration with several updates is done with the last of them.
    let inner_updates = config.estimator.inner_updates;
    let iteration = newest
        .filter(|key| key.kind == StageKind::Update)
        .map_or(0, |key| key.iteration - u32::from(key.inner < inner_updates));
    let mut evaluations = (0..=iterations).filter(|&i| run.is_evaluated(i));
    let is_done = iteration == iterations && evaluations.all(|i| places.contains(&evaluation(i)));

    let (mut failures, damaged) = store.readable_failures(id).await?;
    failures.retain(|failure| !seen.has(failure.stage));
    let failed = failures.len() + damaged.iter().filter(|record| !seen.has_made(record)).count();
    let (control, unheard) = store.readable_control(id).await?;
    let state = match (is_done, control.map(|control| control.state), failed) {
        (true, _, _) => RunState::Done,
        _ if unheard.is_some() => RunState::Unreadable,
        (_, Some(Hold::Cancelled), _) => RunState::Cancelled,
        (_, _, 1..) => RunState::Failed,
        (_, Some(Hold::Paused), 0) => RunState::Paused,
        (_, None, 0) => RunState::Running,
    };
    let foreign = match state {
        RunState::Done | RunState::Cancelled | RunState::Unreadable => None,
        _ => foreign(store, id, newest.and_then(|newest| lost.get(&newest))).await?,
    };
    let unreadable = unheard.clone().filter(|_| !is_done).map(|record| record.why);
    let stages = lost.values().map(|(_, record)| record.clone());
    Ok(RunStatus {
        run: id,
        name: config.name.clone(),
        state,
        iteration,
        iterations,
        policy: newest.and_then(|newest| seen.policies.get(&newest)).copied(),
        accuracy: AccuracyStatus {
            base: seen.accuracy.get(&0).copied(),
            latest: seen.accuracy.last_key_value().map(|(_, share)| *share),
        },
        stages: StageCounts {
            done: (places.len() - lost.len()) as u64,
            failed: failed as u64,
            computed_twice: store.computed_twice(id).await?,
            rewound: store.repair_count(id).await?,
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

/// Why workers of this program leave a run alone: its versions, or the record that it goes on from.
async fn foreign(
    store: &Store,
    run: RunId,
    newest: Option<&(StageDigest, Unreadable)>,
) -> Result<Option<String>, JobsError> {
    match store.incompatible_versions(run).await {
        Ok(None) => {}
        Ok(why) => return Ok(why),
        Err(JobsError::Data(why) | JobsError::Incompatible(why)) => return Ok(Some(why)),
        Err(error) => return Err(error),
    }
    let Some((stage, _)) = newest else { return Ok(None) };
    match store.manifest(*stage).await {
        Err(JobsError::Incompatible(why)) => Ok(Some(why)),
        // What is damaged is computed anew.
        Ok(_) | Err(JobsError::Data(_)) => Ok(None),
        Err(error) => Err(error),
    }
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
    fn new(run: Run) -> Self {
        Self { walk: Walk::new(run), policies: BTreeMap::new(), accuracy: BTreeMap::new() }
    }

    fn has(&self, stage: StageDigest) -> bool {
        self.walk.stages().values().any(|own| *own == stage)
    }

    /// Whether the stage of a failure record has a result.
    fn has_made(&self, failure: &Unreadable) -> bool {
        let stage = failure.object.rsplit('/').next().and_then(|stage| stage.parse().ok());
        stage.is_some_and(|stage| self.has(stage))
    }

    async fn read_on(&mut self, store: &Store) -> Result<(), JobsError> {
        for (key, manifest) in self.walk.advance(store).await? {
            match key.kind {
                StageKind::Sft | StageKind::Update => {
                    self.policies.extend(manifest.output("policy").map(|policy| (key, policy)));
                }
                StageKind::Evaluation => {
                    let share = manifest.metrics.get("accuracy");
                    self.accuracy.extend(share.map(|share| (key.iteration, *share)));
                }
                StageKind::Rollout | StageKind::Reward | StageKind::Gradient => {}
            }
        }
        Ok(())
    }
}

/// The newest place in which a policy is made.
fn newest_of(places: &BTreeSet<StageKey>) -> Option<StageKey> {
    let moves = |key: &&StageKey| matches!(key.kind, StageKind::Sft | StageKind::Update);
    places.iter().rev().find(moves).copied()
}

fn evaluation(iteration: u32) -> StageKey {
    StageKey::new(StageKind::Evaluation, iteration, 0)
}

#[cfg(test)]
mod tests;
