//! Where runs stand, for people and for `--json`.
//!
//! Reads the run's record, books and index and at most three manifests, however long the run is. Only looks:
//! it neither checks blobs nor mends anything.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, RunId, StageDigest, StageKey, StageKind};
use serde::Serialize;

use crate::error::{JobsError, Remedy};
use crate::store::{Hold, Store};
use crate::versions::Versions;

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
}

/// Where a run stands, or all runs by id. Data error if a record that it needs is corrupt.
pub async fn status(store: &Store, run: Option<RunId>) -> Result<Vec<RunStatus>, JobsError> {
    let runs = match run {
        Some(run) => vec![run],
        None => store.runs().await?,
    };
    let mut found = vec![];
    for id in runs {
        found.push(one(store, id).await?);
    }
    Ok(found)
}

async fn one(store: &Store, id: RunId) -> Result<RunStatus, JobsError> {
    let run = store.run(id).await?;
    let config = run.config();
    let recorded = store.recorded_stages(id).await?;
    let done: BTreeSet<_> = recorded.values().collect();
    let failures = store.failures(id).await?;
    let failures: Vec<_> =
        failures.into_iter().filter(|failure| !done.contains(&failure.stage)).collect();
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

    let newest = |kind| recorded.iter().rev().find(|(key, _)| key.kind == kind);
    let iterations = config.training.iterations;
    // An iteration with several updates is done with the last of them.
    let inner_updates = config.estimator.inner_updates;
    let iteration = newest(StageKind::Update)
        .map_or(0, |(key, _)| key.iteration - u32::from(key.inner < inner_updates));
    let base = recorded.get(&evaluation(0)).copied();
    let latest = newest(StageKind::Evaluation).map(|(_, stage)| *stage);
    let evaluations = (0..=iterations).filter(|&i| run.is_evaluated(i));
    let is_done = iteration == iterations
        && evaluations.into_iter().all(|i| recorded.contains_key(&evaluation(i)));
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
        _ => match store.pinned_versions(id).await {
            Ok(pinned) => pinned.and_then(|pinned| Versions::own().misses(&pinned)),
            Err(JobsError::Data(why)) => Some(why),
            Err(error) => return Err(error),
        },
    };
    Ok(RunStatus {
        run: id,
        name: config.name.clone(),
        state,
        iteration,
        iterations,
        policy: policy(store, &recorded).await?,
        accuracy: AccuracyStatus {
            base: accuracy(store, base).await?,
            latest: accuracy(store, latest).await?,
        },
        stages: StageCounts { done: recorded.len() as u64, failed, computed_twice, rewound },
        failed_at,
        foreign,
    })
}

fn evaluation(iteration: u32) -> StageKey {
    StageKey::new(StageKind::Evaluation, iteration, 0)
}

async fn accuracy(store: &Store, stage: Option<StageDigest>) -> Result<Option<f64>, JobsError> {
    let Some(stage) = stage else { return Ok(None) };
    let manifest = store.manifest(stage).await?;
    Ok(manifest.and_then(|manifest| manifest.metrics.get("accuracy").copied()))
}

/// The policy that the newest update or sft chunk left.
async fn policy(
    store: &Store,
    recorded: &BTreeMap<StageKey, StageDigest>,
) -> Result<Option<ArtifactDigest>, JobsError> {
    let moves = |key: &StageKey| matches!(key.kind, StageKind::Sft | StageKind::Update);
    let Some((_, stage)) = recorded.iter().rev().find(|(key, _)| moves(key)) else {
        return Ok(None);
    };
    Ok(store.manifest(*stage).await?.and_then(|manifest| manifest.output("policy")))
}

#[cfg(test)]
mod tests;
