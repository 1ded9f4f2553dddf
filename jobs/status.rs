//! Where runs stand, for people and for `--json`.
//!
//! Reads the run's record, books and index and a few manifests, however long the run is, where its policies
//! are noted; else it is walked from its start. Only looks: it neither checks blobs nor mends anything.

use std::collections::BTreeSet;

use agrpo_spec::{ArtifactDigest, Plan, Run, RunId, StageDigest, StageKey, StageKind};
use serde::Serialize;

use crate::error::{JobsError, Remedy};
use crate::noted::policy_at;
use crate::store::{Hold, Store};
use crate::versions::Versions;
use crate::walk::Walk;

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
    /// A record that says so cannot be read.
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
    /// Why the run cannot be read, if so; what else its row says is then nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// Where a run stands, or all runs by id. Data error if a record that the one needs is corrupt; among all
/// runs, one that cannot be read says so in its row.
pub async fn status(store: &Store, run: Option<RunId>) -> Result<Vec<RunStatus>, JobsError> {
    if let Some(run) = run {
        return Ok(vec![one(store, run).await?]);
    }
    let mut found = vec![];
    for id in store.runs().await? {
        found.push(match one(store, id).await {
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

/// The row of a run that cannot be read.
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
    }
}

async fn one(store: &Store, id: RunId) -> Result<RunStatus, JobsError> {
    let run = store.run(id).await?;
    let config = run.config();
    let own = Own::find(store, &run).await?;
    let failures = store.failures(id).await?;
    let failures: Vec<_> = failures.into_iter().filter(|failure| !own.has(failure.stage)).collect();
    let failed = failures.len() as u64;
    let failed_at = failures.into_iter().next().map(|failure| FailedAt {
        key: failure.key,
        stage: failure.stage,
        error: failure.error,
        remedy: failure.remedy,
        attempts: failure.attempts,
    });

    let computed_twice = store.computed_twice(id).await?;
    let rewound = store.rewound_count(id).await?;

    let iterations = config.training.iterations;
    // An iteration with several updates is done with the last of them.
    let inner_updates = config.estimator.inner_updates;
    let iteration = own
        .newest
        .filter(|key| key.kind == StageKind::Update)
        .map_or(0, |key| key.iteration - u32::from(key.inner < inner_updates));
    let mut evaluations = (0..=iterations).filter(|&i| run.is_evaluated(i));
    let is_done =
        iteration == iterations && evaluations.all(|i| own.places.contains(&evaluation(i)));
    let held = store.control(id).await?.map(|control| control.state);
    let state = match (is_done, held, failed) {
        (true, _, _) => RunState::Done,
        (_, Some(Hold::Cancelled), _) => RunState::Cancelled,
        (_, _, 1..) => RunState::Failed,
        (_, Some(Hold::Paused), 0) => RunState::Paused,
        (_, None, 0) => RunState::Running,
    };
    let foreign = match state {
        RunState::Done | RunState::Cancelled => None,
        _ => foreign(store, &run, own.newest).await?,
    };
    let newest = own.places.iter().rev().filter(|key| key.kind == StageKind::Evaluation);
    let mut latest = None;
    for key in newest {
        latest = own.accuracy(store, &run, key.iteration).await?;
        if latest.is_some() {
            break;
        }
    }
    Ok(RunStatus {
        run: id,
        name: config.name.clone(),
        state,
        iteration,
        iterations,
        policy: own.policy,
        accuracy: AccuracyStatus { base: own.accuracy(store, &run, 0).await?, latest },
        stages: StageCounts { done: own.places.len() as u64, failed, computed_twice, rewound },
        failed_at,
        foreign,
        unreadable: None,
    })
}

/// Why workers of this program leave a run alone: its versions, or the record that it goes on from.
async fn foreign(
    store: &Store,
    run: &Run,
    newest: Option<StageKey>,
) -> Result<Option<String>, JobsError> {
    match store.pinned_versions(run.id()).await {
        Ok(pinned) => {
            if let Some(why) = pinned.and_then(|pinned| Versions::own().misses(&pinned)) {
                return Ok(Some(why));
            }
        }
        Err(JobsError::Data(why) | JobsError::Incompatible(why)) => return Ok(Some(why)),
        Err(error) => return Err(error),
    }
    let Some(newest) = newest else { return Ok(None) };
    let Some(stage) = store.recorded_policy(run.id(), newest).await? else { return Ok(None) };
    match store.manifest(stage).await {
        Err(JobsError::Incompatible(why)) => Ok(Some(why)),
        // What is damaged is computed anew.
        Ok(_) | Err(JobsError::Data(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The run's own stages, as far as its status needs them.
struct Own {
    /// Places that are done.
    places: BTreeSet<StageKey>,
    /// What the index names, or a walk found.
    stages: BTreeSet<(StageKey, StageDigest)>,
    /// The newest update or chunk of fine-tuning.
    newest: Option<StageKey>,
    policy: Option<ArtifactDigest>,
    /// Whether the stages were found by a walk.
    is_walked: bool,
}

impl Own {
    /// One listing and one read where the newest policy has its note; else the run is walked.
    async fn find(store: &Store, run: &Run) -> Result<Self, JobsError> {
        let stages: BTreeSet<_> = store.recorded_entries(run.id()).await?.into_iter().collect();
        let places: BTreeSet<StageKey> = stages.iter().map(|(key, _)| *key).collect();
        let newest = newest_of(&places);
        let note = match newest {
            Some(newest) => store.policy_note(run.id(), newest).await?,
            None => return Ok(Self { places, stages, newest, policy: None, is_walked: false }),
        };
        if let Some(note) = note
            && stages.contains(&(note.key, note.stage))
        {
            return Ok(Self {
                places,
                stages,
                newest,
                policy: Some(note.policy),
                is_walked: false,
            });
        }
        let mut walk = Walk::new(run.clone());
        walk.advance(store).await?;
        let found = walk.stages();
        let places: BTreeSet<StageKey> = found.keys().copied().collect();
        let newest = newest_of(&places);
        let policy = match newest {
            Some(newest) => store.manifest(found[&newest]).await?.and_then(|m| m.output("policy")),
            None => None,
        };
        let stages = found.iter().map(|(key, stage)| (*key, *stage)).collect();
        Ok(Self { places, stages, newest, policy, is_walked: true })
    }

    fn has(&self, stage: StageDigest) -> bool {
        self.stages.iter().any(|(_, own)| *own == stage)
    }

    /// Of the policy after so many iterations, if the run has its evaluation.
    async fn accuracy(
        &self,
        store: &Store,
        run: &Run,
        iteration: u32,
    ) -> Result<Option<f64>, JobsError> {
        let key = evaluation(iteration);
        let mut stages = self.stages.iter().filter(|(place, _)| *place == key);
        let stage = if self.is_walked {
            stages.next().map(|(_, stage)| *stage)
        } else {
            let policy = policy_at(store, run, iteration).await?;
            let own = policy.map(|policy| Plan::evaluation_of(run, policy).digest());
            own.filter(|own| stages.any(|(_, stage)| stage == own))
        };
        let Some(stage) = stage else { return Ok(None) };
        let manifest = store.manifest(stage).await?;
        Ok(manifest.and_then(|manifest| manifest.metrics.get("accuracy").copied()))
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
