//! What is kept about a run: its configuration, an index of its finished stages, its failures.
//!
//! None of this decides a result: the index names manifests that anybody can find again by planning
//! the run from its start, and a failure only explains why a run stands still.

use std::collections::BTreeMap;

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{Environment, Run, RunConfig, RunId, StageDigest, StageKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sealed::{Place, REPAIR, Unreadable, sorted};
use crate::error::{JobsError, Remedy};
use crate::store::Store;

/// Why a stage failed for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The stage's place in the run.
    pub key: StageKey,
    /// The stage's name.
    pub stage: StageDigest,
    /// What the last attempt said.
    pub error: String,
    /// Where another try may help.
    #[serde(default)]
    pub remedy: Remedy,
    /// Who made the last attempt.
    pub worker: String,
    /// How often it was begun.
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

pub(crate) fn run_name(run: RunId) -> String {
    format!("runs/{run}/run.json")
}

fn failure_name(run: RunId, stage: StageDigest) -> String {
    format!("runs/{run}/failures/{stage}")
}

pub(crate) fn run_place(name: &str) -> Place<'_> {
    Place { name, remedy: "agrpo run FILE, with the run's file, writes it again" }
}

/// A run whose record this is. What it asks for may be more than this program can do.
pub(crate) fn open_run(id: RunId, bytes: &[u8]) -> Result<Opened<Run>, RecordError> {
    let Opened { value, is_sealed } = record::open::<RunConfig>(bytes)?;
    let run = Run::resolve(value);
    let run = run.map_err(|error| RecordError::Incompatible(error.to_string()))?;
    if run.id() != id {
        return Err(RecordError::Damaged(format!("it holds the run {}", run.id())));
    }
    Ok(Opened { value: run, is_sealed })
}

impl Store {
    /// Records a run, and what is kept of it. The same run again changes nothing but the latter; a damaged record
    /// is written again.
    pub async fn put_run(&self, run: &Run) -> Result<(), JobsError> {
        let (name, bytes) = (run_name(run.id()), Bytes::from(record::seal(run.config())));
        match self.create_run(run, &name, bytes.clone()).await {
            Err(JobsError::Data(error)) => {
                tracing::warn!(run = run.id().short(), error, "a damaged record is written again");
                self.backend.replace(&name, bytes).await?;
            }
            created => created?,
        }
        self.put_retention(run).await
    }

    /// Writes a run's record unless it is there. Another version may have written the same run differently; its
    /// identity is what counts.
    async fn create_run(&self, run: &Run, name: &str, bytes: Bytes) -> Result<(), JobsError> {
        let Some(found) = self.backend.create(name, bytes).await? else { return Ok(()) };
        self.open_record(run_place(name), found, |bytes| open_run(run.id(), bytes)).await?;
        Ok(())
    }

    /// A recorded run. Data error if it is missing or is not what its name says.
    pub async fn run(&self, id: RunId) -> Result<Run, JobsError> {
        let name = run_name(id);
        let found = self.read_record(run_place(&name), |bytes| open_run(id, bytes)).await?;
        found.map(|record| record.value).ok_or_else(|| {
            JobsError::Data(format!(
                "{name} is missing in {}; agrpo run FILE, with the run's file, writes it again",
                self.url()
            ))
        })
    }

    /// All recorded runs, sorted.
    pub async fn runs(&self) -> Result<Vec<RunId>, JobsError> {
        let names = self.backend.folders("runs").await?;
        let mut runs: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        runs.sort_unstable();
        Ok(runs)
    }

    /// Notes in the run's index that a stage is done. Written without waiting for the disk.
    pub async fn record_stage(
        &self,
        run: RunId,
        key: StageKey,
        stage: StageDigest,
    ) -> Result<(), JobsError> {
        let name = format!("runs/{run}/stages/{key}.{stage}");
        self.backend.hint(&name, Bytes::from(format!("{stage}\n"))).await
    }

    /// The run's index by place, where one stage is named; costs one listing. An entry promises nothing:
    /// `Walk` tells which count.
    pub async fn recorded_stages(
        &self,
        run: RunId,
    ) -> Result<BTreeMap<StageKey, StageDigest>, JobsError> {
        Ok(self.recorded_entries(run).await?.into_iter().collect())
    }

    /// Every entry of the run's index, in the order of the plan.
    pub async fn recorded_entries(
        &self,
        run: RunId,
    ) -> Result<Vec<(StageKey, StageDigest)>, JobsError> {
        let names = self.backend.list(&format!("runs/{run}/stages")).await?;
        let entry = |name: &String| {
            let (key, stage) = name.split_once('.')?;
            Some((key.parse().ok()?, stage.parse().ok()?))
        };
        let mut entries: Vec<_> = names.iter().filter_map(entry).collect();
        entries.sort_unstable();
        Ok(entries)
    }

    /// Notes that a stage was computed though another worker's record stood first. Only a count, so
    /// written without waiting for the disk.
    pub async fn record_twice(&self, run: RunId, stage: StageDigest) -> Result<(), JobsError> {
        let name = format!("runs/{run}/twice/{stage}");
        self.backend.hint(&name, Bytes::from(format!("{stage}\n"))).await
    }

    /// How many of the run's stages were computed more than once.
    pub async fn computed_twice(&self, run: RunId) -> Result<u64, JobsError> {
        Ok(self.backend.list(&format!("runs/{run}/twice")).await?.len() as u64)
    }

    /// Records why a stage failed; a later failure of the stage takes its place.
    pub async fn put_failure(&self, run: RunId, failure: &Failure) -> Result<(), JobsError> {
        self.replace_record(&failure_name(run, failure.stage), failure).await
    }

    /// Forgets a failure, as the stage is tried again or done.
    pub async fn clear_failure(&self, run: RunId, stage: StageDigest) -> Result<(), JobsError> {
        self.delete_record::<Failure>(&failure_name(run, stage)).await
    }

    /// The stages that have a failure record, whether or not it can be read.
    pub async fn failed_stages(&self, run: RunId) -> Result<Vec<StageDigest>, JobsError> {
        let names = self.backend.list(&format!("runs/{run}/failures")).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The run's failures by place in the run. Data error if one is corrupt.
    pub async fn failures(&self, run: RunId) -> Result<Vec<Failure>, JobsError> {
        let found = self.each_failure(run).await?.into_iter().map(|(_, found)| found);
        let found: Vec<Option<Failure>> = found.collect::<Result<_, _>>()?;
        Ok(in_order(found.into_iter().flatten().collect()))
    }

    /// The same, with those that cannot be read beside them.
    pub async fn readable_failures(
        &self,
        run: RunId,
    ) -> Result<(Vec<Failure>, Vec<Unreadable>), JobsError> {
        let (failures, unreadable) = sorted(self.each_failure(run).await?);
        Ok((in_order(failures), unreadable))
    }

    async fn each_failure(
        &self,
        run: RunId,
    ) -> Result<Vec<(String, Result<Option<Failure>, JobsError>)>, JobsError> {
        let stages = self.failed_stages(run).await?;
        let names = stages.into_iter().map(|stage| failure_name(run, stage));
        self.each_record(names.collect(), REPAIR).await
    }
}

fn in_order(mut failures: Vec<Failure>) -> Vec<Failure> {
    failures.sort_unstable_by_key(|failure| (failure.key, failure.stage));
    failures
}
