//! The status of runs, for the terminal and for `--json`.
//!
//! Shows a policy or an accuracy only if the run's plan leads to it along its records (`walk.rs`): neither an index
//! nor a note decides. That takes one read a stage; the next call reads only new records. Names records that cannot be
//! read beside the results of the others. Checks no blob and repairs nothing.

use std::collections::BTreeMap;

use agrpo_spec::metrics::ACCURACY;
use agrpo_spec::{
    ArtifactDigest, EvaluationShards, Partial, Plan, Run, RunId, StageDigest, StageKey, StageKind,
};
use agrpo_store::{Failure, Hold, JobsError, Remedy, Store, Unreadable, readable};
use serde::Serialize;

use crate::{Result, planning::Walk};

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
    /// The state by a run's records; `is_unknown` if its `control.json` cannot be read.
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
    /// Whether that is another policy than the base.
    #[serde(skip)]
    pub is_later: bool,
}

impl AccuracyStatus {
    /// Of the newest evaluated policy, if that is another one than the base.
    pub fn later(&self) -> Option<f64> {
        self.latest.filter(|_| self.is_later)
    }
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
    #[serde(rename = "rewound")]
    pub repaired: u64,
}

/// The first stage, in the order of the run, that failed for good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedAt {
    /// Its key in the run.
    pub key: StageKey,
    /// Its name.
    pub stage: StageDigest,
    /// What the last attempt said, in one line.
    pub error: String,
    /// Where a retry may help.
    pub remedy: Remedy,
    /// How often it was begun.
    pub attempts: u32,
}

/// The status of a run.
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
    /// The accuracy of its policies; an evaluation in shards counts once all of them are there.
    pub accuracy: AccuracyStatus,
    /// Evaluations of which only some shards are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial_evaluations: Vec<Partial>,
    /// Counts of its stages.
    pub stages: StageCounts,
    /// The stage that it failed at, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<FailedAt>,
    /// Why workers of this program skip it, if stages are left and they do.
    #[serde(rename = "foreign", skip_serializing_if = "Option::is_none")]
    pub incompatible: Option<String>,
    /// Why its state is unknown, if so. Without the run's own record its row says nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Its other records that cannot be read. Their stages do not count as done, though no other stage may need them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable_records: Vec<Unreadable>,
}

/// The status of one run, or of all runs by id. Data error if the records that decide the state of the one run are
/// corrupt; among all runs, a run of unknown state has a row with the reason.
pub async fn status(store: &Store, run: Option<RunId>) -> Result<Vec<RunStatus>> {
    let mut looks = Looks::default();
    let Some(run) = run else { return looks.all(store).await };
    let status = looks.one(store, run).await?;
    match status.unreadable {
        Some(why) => Err(JobsError::data(why)),
        None => Ok(vec![status]),
    }
}

/// The status of runs, asked for repeatedly: the record of a stage is read once.
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
                // The error is about the server, not about one run.
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
        let new = || Seen {
            evaluations: EvaluationShards::of(&run),
            walk: Walk::new(run),
            policies: BTreeMap::new(),
            accuracy: BTreeMap::new(),
        };
        let seen = self.0.entry(id).or_insert_with(new);
        seen.read_on(store).await?;
        row(store, seen).await
    }
}

/// The row of a run whose state is unknown.
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
        accuracy: AccuracyStatus { base: None, latest: None, is_later: false },
        partial_evaluations: vec![],
        stages: StageCounts::default(),
        failed_at: None,
        incompatible: None,
        unreadable: Some(error.to_string()),
        unreadable_records: vec![],
    }
}

async fn row(store: &Store, seen: &Seen) -> Result<RunStatus> {
    let (run, walk) = (seen.walk.run(), &seen.walk);
    let (id, config) = (run.id(), run.config());
    let (done, lost) = (walk.done_keys(), walk.unreadable());
    let newest = done.iter().rev().find(|key| key.makes_policy());
    let iterations = config.training.iterations;
    let iteration = Plan::newest_iteration(run, &done);
    let is_done = iteration == iterations
        && (0..=iterations).all(|iteration| {
            Plan::evaluations(run, iteration).iter().all(|key| done.contains(key))
        });

    let (mut failures, damaged) = store.records.readable_failures(id).await?;
    failures.retain(|failure| !seen.has(failure.stage));
    let is_made = |record: &Unreadable| record.failed_stage().is_some_and(|stage| seen.has(stage));
    let failed = failures.len() + damaged.iter().filter(|record| !is_made(record)).count();
    let (control, unreadable_control) = store.records.readable_control(id).await?;
    let held = control.map(|control| control.state);
    let state = RunState::new(is_done, unreadable_control.is_some(), held, failed > 0);
    let incompatible = match state {
        RunState::Done | RunState::Cancelled | RunState::Unreadable => None,
        _ => why_incompatible(store, id, newest.and_then(|newest| lost.get(newest))).await?,
    };
    let unreadable = unreadable_control.clone().filter(|_| !is_done).map(|record| record.why);
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
            is_later: seen.accuracy.range(1..).next().is_some(),
        },
        partial_evaluations: seen.evaluations.partial().collect(),
        stages: StageCounts {
            done: (done.len() - lost.len()) as u64,
            failed: failed as u64,
            computed_twice: store.records.computed_twice(id).await?,
            repaired: store.records.repair_count(id).await?,
        },
        failed_at: failures.into_iter().next().map(|failure| {
            let Failure { key, stage, error, remedy, attempts, .. } = failure;
            FailedAt { key, stage, error, remedy, attempts }
        }),
        incompatible,
        unreadable,
        unreadable_records: stages
            .chain(damaged)
            .chain(unreadable_control.filter(|_| is_done))
            .collect(),
    })
}

/// Why workers of this program skip a run: its versions, or the record of the newest policy, from which they go on.
async fn why_incompatible(
    store: &Store,
    run: RunId,
    newest: Option<&(StageDigest, Unreadable)>,
) -> Result<Option<String>> {
    let why = readable(store.records.incompatible_versions(run).await)?;
    // A damaged record is no reason: its stage is computed anew.
    let newer = newest.filter(|(_, record)| record.is_incompatible);
    let newer = newer.map(|(_, record)| record.why.clone());
    Ok(why.map_or_else(|error| Some(error.to_string()), |why| why.or(newer)))
}

/// A run's own stages, as far as they were read.
#[derive(Debug)]
struct Seen {
    walk: Walk,
    /// The policies of updates and chunks of fine-tuning.
    policies: BTreeMap<StageKey, ArtifactDigest>,
    /// The metrics of evaluations.
    evaluations: EvaluationShards<BTreeMap<String, f64>>,
    /// By iteration.
    accuracy: BTreeMap<u32, f64>,
}

impl Seen {
    fn has(&self, stage: StageDigest) -> bool {
        self.walk.stages().values().any(|own| *own == stage)
    }

    async fn read_on(&mut self, store: &Store) -> Result<()> {
        for (key, manifest) in self.walk.advance(store).await? {
            if key.makes_policy() {
                self.policies.extend(manifest.output("policy").map(|policy| (key, policy)));
            } else if key.kind == StageKind::Evaluation {
                let whole = self.evaluations.add(key, manifest.metrics.clone());
                let share = whole.and_then(|whole| whole.get(ACCURACY).copied());
                self.accuracy.extend(share.map(|share| (key.iteration, share)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
