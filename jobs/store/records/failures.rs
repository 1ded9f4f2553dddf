//! Failures: why stages failed for good. They explain why a run does not go on, and decide no result.

use agrpo_spec::{Environment, RunId, StageDigest, StageKey};
use serde::{Deserialize, Serialize};

use super::json::{Fields, Records, Split};
use crate::{Remedy, Result, paths};

/// Why a stage failed for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The stage's place in the run.
    pub key: StageKey,
    /// The stage's name.
    pub stage: StageDigest,
    /// The error of the last attempt.
    pub error: String,
    /// Where another try may help.
    #[serde(default)]
    pub remedy: Remedy,
    /// Who made the last attempt.
    pub worker: String,
    /// How often it was started.
    pub attempts: u32,
    /// When it was given up, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The machine of the last attempt.
    #[serde(default)]
    pub environment: Environment,
    /// What the last attempt logged at its end.
    #[serde(default)]
    pub log: Vec<String>,
}

impl Fields for Failure {}

impl Records {
    /// Records why a stage failed, over an earlier failure of the stage.
    pub async fn put_failure(&self, run: RunId, failure: &Failure) -> Result<()> {
        self.put(&paths::in_run(run, "failures", failure.stage), failure).await
    }

    /// Removes a failure, where the stage is tried again or done.
    pub async fn clear_failure(&self, run: RunId, stage: StageDigest) -> Result<()> {
        self.delete::<Failure>(&paths::in_run(run, "failures", stage)).await
    }

    /// The stages that have a failure record, whether or not it can be read.
    pub async fn failed_stages(&self, run: RunId) -> Result<Vec<StageDigest>> {
        self.list(&paths::of_run(run, "failures")).await
    }

    /// The run's failures by place in the run. Data error if one is corrupt.
    pub async fn failures(&self, run: RunId) -> Result<Vec<Failure>> {
        let (failures, unreadable) = self.readable_failures(run).await?;
        unreadable.into_iter().next().map_or(Ok(failures), |first| Err(first.into_error()))
    }

    /// The same, with those that cannot be read beside them.
    pub async fn readable_failures(&self, run: RunId) -> Split<Failure> {
        let stages = self.failed_stages(run).await?.into_iter();
        let names = stages.map(|stage| paths::in_run(run, "failures", stage)).collect();
        let (mut failures, unreadable) = self.each::<Failure>(names).await?;
        failures.sort_unstable_by_key(|failure| (failure.key, failure.stage));
        Ok((failures, unreadable))
    }
}
