//! Objects as a gc sees them: listed with length and age, deleted one by one, runs forgotten.
//!
//! Ages are by the store's own clock, which a worker's wrong clock cannot change. Decides nothing
//! about what may go.

use agrpo_spec::{ArtifactDigest, RunId};
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::blocking::blocking;
use crate::cache::References;
use crate::cas::blob_name;
use crate::error::JobsError;
use crate::objects::{Entry, local};
use crate::records::run_name;
use crate::regular;
use crate::store::Store;

/// The folders of a store.
pub const FOLDERS: [&str; 5] = ["stages", "specs", "cas", "runs", "aside"];
/// The folders that each run has.
pub const OF_RUNS: [&str; 6] = ["stages", "policies", "failures", "twice", "dropped", "rewound"];

impl Store {
    /// The time by the store's own clock, in milliseconds since 1970.
    pub async fn now_ms(&self) -> Result<i64, JobsError> {
        let name = "aside/clock";
        self.clock(name).await?.ok_or_else(|| {
            let url = self.url();
            JobsError::Unavailable(format!("{url}: {name} was written and is not there"))
        })
    }

    /// What the store's clock says when it writes this object; `None` where it was deleted at once.
    pub(crate) async fn clock(&self, name: &str) -> Result<Option<i64>, JobsError> {
        self.backend.replace(name, Bytes::from_static(b"agrpo")).await?;
        let entry = self.backend.entry(name).await?;
        self.backend.delete(name).await?;
        Ok(entry.map(|entry| entry.written_ms))
    }

    /// Every object below a folder, in no order.
    pub async fn objects(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        self.backend.entries(folder).await
    }

    /// What one listing would say of an object; `None` where there is none.
    pub async fn object(&self, name: &str) -> Result<Option<Entry>, JobsError> {
        self.backend.entry(name).await
    }

    /// Removes an object; its absence is no error.
    pub async fn delete_object(&self, name: &str) -> Result<(), JobsError> {
        self.backend.delete(name).await
    }

    /// Removes a blob; its absence is no error.
    pub async fn delete_blob(&self, digest: ArtifactDigest) -> Result<(), JobsError> {
        self.backend.delete(&blob_name(digest)).await
    }

    /// What this process knows of the blobs that runs name.
    pub fn references(&self) -> &Mutex<References> {
        &self.references
    }

    /// How many objects are kept about a run, results left aside.
    pub async fn run_objects(&self, run: RunId) -> Result<u64, JobsError> {
        Ok(self.backend.entries(&format!("runs/{run}")).await?.len() as u64)
    }

    /// Whether anything has the name of a run's record.
    pub async fn has_run_record(&self, run: RunId) -> Result<bool, JobsError> {
        Ok(self.backend.look(&run_name(run)).await?.is_some())
    }

    /// Whether something stands in a local store in the place of an object and is no regular file.
    pub async fn is_no_file(&self, name: &str) -> Result<bool, JobsError> {
        let Some(path) = self.backend.path(name) else { return Ok(false) };
        let name = name.to_owned();
        let look = move || local::look(&path, name).is_ok_and(|entry| entry.odd.is_some());
        blocking(look).await
    }

    /// What stands in a local store in the place of a folder and is none: its name, and what it is.
    pub async fn misplaced(
        &self,
        folders: Vec<String>,
    ) -> Result<Vec<(String, &'static str)>, JobsError> {
        let paths = folders.into_iter().filter_map(|name| Some((self.backend.path(&name)?, name)));
        let paths: Vec<_> = paths.collect();
        let found = move || {
            let found = paths.into_iter();
            found.filter_map(|(path, name)| Some((name, regular::no_folder(&path)?))).collect()
        };
        blocking(found).await
    }

    /// Removes everything that is kept about a run, whatever it is. The record goes last, so that a crash leaves
    /// a run that can be forgotten again. Answers with how many objects went; results stay for a gc.
    pub async fn forget_run(&self, run: RunId) -> Result<u64, JobsError> {
        let (folder, record) = (format!("runs/{run}"), run_name(run));
        let entries = self.backend.entries(&folder).await?;
        for entry in entries.iter().filter(|entry| entry.name != record) {
            self.backend.clear(&entry.name).await?;
        }
        self.backend.clear(&record).await?;
        if let Some(path) = self.backend.path(&folder) {
            // Folders of a local store outlive their files; an empty one would look like a run.
            tokio::fs::remove_dir_all(path).await.ok();
        }
        Ok(entries.len() as u64)
    }
}
