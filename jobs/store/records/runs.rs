//! Runs: their configuration, which says what everything else kept about them is of.

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{Run, RunConfig, RunId};

use super::json::{Record, Records, named};
use crate::{Result, paths};

impl Record for Run {
    const REMEDY: &'static str = "agrpo run FILE, with the run's file, writes it again";

    fn seal(&self) -> Vec<u8> {
        record::seal(self.config())
    }

    /// What it asks for may be more than this program can do.
    fn open(name: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError> {
        let Opened { value, is_sealed } = record::open::<RunConfig>(bytes)?;
        let run = Self::resolve(value);
        let run = run.map_err(|error| RecordError::Incompatible(error.to_string()))?;
        if run.id() != named(name)? {
            return Err(RecordError::Damaged(format!("it holds the run {}", run.id())));
        }
        Ok(Opened { value: run, is_sealed })
    }
}

impl Records {
    /// Records a run, and what is kept of it. The same run again changes the latter alone; another version may have
    /// written it differently. A damaged record is written again.
    pub async fn put_run(&self, run: &Run) -> Result<()> {
        self.create(&paths::of_run(run.id(), "run.json"), run).await?;
        self.put_retention(run).await
    }

    /// A recorded run. Data error if it is missing or is not what its name says.
    pub async fn run(&self, id: RunId) -> Result<Run> {
        self.need(&paths::of_run(id, "run.json")).await
    }

    /// All recorded runs, sorted.
    pub async fn runs(&self) -> Result<Vec<RunId>> {
        let names = self.objects.folders("runs").await?;
        let mut runs: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        runs.sort_unstable();
        Ok(runs)
    }

    /// The other runs that have this name, sorted. Runs whose records are damaged have none.
    pub async fn namesakes(&self, run: RunId, name: &str) -> Result<Vec<RunId>> {
        let others = self.runs().await?.into_iter().filter(|&other| other != run);
        let named = self.names(others.collect()).await?.into_iter();
        Ok(named.filter(|(_, other)| other == name).map(|(id, _)| id).collect())
    }

    /// Whether anything has the name of a run's record.
    pub async fn has_run_record(&self, run: RunId) -> Result<bool> {
        Ok(self.objects.look(&paths::of_run(run, "run.json")).await?.is_some())
    }

    /// How many objects are kept about a run, results left aside.
    pub async fn run_objects(&self, run: RunId) -> Result<u64> {
        Ok(self.objects.entries(&paths::run(run)).await?.len() as u64)
    }

    /// Removes everything that is kept about a run; results stay for a gc. The record goes last, so that a crash
    /// leaves a run that can be forgotten again. Answers with how many objects went.
    pub async fn forget_run(&self, run: RunId) -> Result<u64> {
        let (folder, record) = (paths::run(run), paths::of_run(run, "run.json"));
        let entries = self.objects.entries(&folder).await?;
        for entry in entries.iter().filter(|entry| entry.name != record) {
            self.objects.clear(&entry.name).await?;
        }
        self.objects.clear(&record).await?;
        if let Some(path) = self.objects.path(&folder) {
            // Folders of a local store outlive their files; an empty one would look like a run.
            tokio::fs::remove_dir_all(path).await.ok();
        }
        Ok(entries.len() as u64)
    }
}
