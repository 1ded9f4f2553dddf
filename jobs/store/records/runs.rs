//! Runs: their configuration, from which everything else about them is derived.

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{Run, RunConfig, RunId};

use super::json::{Record, Records, Split, named};
use crate::{Result, objects::Lock, paths};

impl Record for Run {
    const REMEDY: &'static str = "agrpo run FILE, with the run's file, writes it again";

    fn seal(&self) -> Vec<u8> {
        record::seal(self.config())
    }

    /// A configuration that this program does not know is incompatible, not damaged.
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
    /// Records a run and its retention. Of a recorded run only the retention changes: another version may have written
    /// the record differently. A damaged record is overwritten.
    pub async fn put_run(&self, run: &Run) -> Result<()> {
        self.create(&paths::of_run(run.id(), "run.json"), run).await?;
        self.put_retention(run).await
    }

    /// A recorded run. Data error if it is missing or has another id than its name.
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
        let (named, _) = self.names(others.collect()).await?;
        Ok(named.into_iter().filter(|(_, other)| other == name).map(|(id, _)| id).collect())
    }

    /// The names of these runs, and the records that cannot be read: they must not hide the others.
    pub(super) async fn names(&self, runs: Vec<RunId>) -> Split<(RunId, String)> {
        let records = runs.into_iter().map(|id| paths::of_run(id, "run.json")).collect();
        let (runs, unreadable) = self.each::<Run>(records).await?;
        let name = |run: &Run| (run.id(), run.config().name.clone());
        Ok((runs.iter().map(name).collect(), unreadable))
    }

    /// Whether a run's record exists, readable or not.
    pub async fn has_run_record(&self, run: RunId) -> Result<bool> {
        Ok(self.objects.look(&paths::of_run(run, "run.json")).await?.is_some())
    }

    /// Locks a run for this process, which computes or deletes it; `None` where another process of a local store has locked
    /// it. The runs of a server's store are shared by workers, whose leases tell them apart.
    pub async fn lock_run(&self, run: RunId) -> Result<Option<Lock>> {
        self.objects.lock(&paths::lock(run)).await
    }

    /// How many objects a run's folder holds; results are not in it.
    pub async fn run_objects(&self, run: RunId) -> Result<u64> {
        Ok(self.objects.entries(&paths::run(run)).await?.len() as u64)
    }

    /// Deletes a run's folder; results stay for gc. The record is deleted last, so that after a crash the run can be
    /// forgotten again. Whoever calls this has locked the run. Returns how many objects were deleted.
    pub async fn forget_run(&self, run: RunId) -> Result<u64> {
        let (folder, record) = (paths::run(run), paths::of_run(run, "run.json"));
        let entries = self.objects.entries(&folder).await?;
        for entry in entries.iter().filter(|entry| entry.name != record) {
            self.objects.clear(&entry.name).await?;
        }
        self.objects.clear(&record).await?;
        if let Some(path) = self.objects.path(&folder) {
            // In a local store the empty folder remains, and would look like a run.
            tokio::fs::remove_dir_all(path).await.ok();
        }
        Ok(entries.len() as u64)
    }
}
