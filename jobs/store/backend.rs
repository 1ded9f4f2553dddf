//! The few operations that the store is built from, over any object store.
//!
//! Reads and writes are whole objects; writes are atomic on every backend (staging file and rename,
//! or one request). Nothing depends on the order of a listing. Every try of an operation ends within a time
//! that follows from its size, so a server that has gone silent becomes an error; a server that is away is asked
//! again for as long as this store was told to be patient.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::LARGE;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::errors::Place;
use super::files::{self, Mode};
use super::local;
use super::transfer::{Missed, persistently, was_cut};
use super::trust::{Patience, Trust};
use crate::error::JobsError;
use crate::patience::patiently;

/// A server that has not answered a small request by then is not going to.
const ANSWER: Duration = Duration::from_secs(20);
/// A disk that others keep busy can take this long to flush a file.
const FLUSH: Duration = Duration::from_secs(180);
/// Bytes a second below which a transfer counts as stuck.
const SLOWEST: u64 = 1 << 20;
/// How often a refused write is tried again when nothing turns out to be there.
const ATTEMPTS: u32 = 5;
/// Grows with each of those tries.
const SETTLE: Duration = Duration::from_millis(50);

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its whole name.
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// When it was last written by the store's own clock, in milliseconds since 1970.
    pub(crate) written_ms: i64,
    /// What it is in a local store, if it is no file.
    pub(crate) odd: Option<&'static str>,
}

impl Entry {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let written_ms = meta.last_modified.timestamp_millis();
        Self { name: meta.location.to_string(), size: meta.size, written_ms, odd: None }
    }
}

#[derive(Clone)]
pub(super) struct Backend {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Where a local store's objects are files.
    folder: Option<PathBuf>,
    place: Arc<Place>,
    answer: Duration,
    large: u64,
    trust: Arc<Trust>,
    /// How a server that is away is waited for; without it, the caller does.
    patience: Option<Patience>,
}

impl Backend {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        folder: Option<PathBuf>,
        place: Place,
    ) -> Self {
        let answer = if folder.is_some() { FLUSH } else { ANSWER };
        let (place, trust) = (Arc::new(place), Arc::default());
        Self { objects, folder, place, answer, large: LARGE, trust, patience: None }
    }

    /// The same backend, which waits for a server that is away. The file system of a local store is not waited for.
    pub(super) fn with_patience(&self, patience: Patience) -> Self {
        Self { patience: self.is_remote().then_some(patience), ..self.clone() }
    }

    /// Tries again while the server is away, as long as this store was told to.
    pub(super) async fn patiently<T, F>(&self, exchange: impl FnMut() -> F) -> Result<T, JobsError>
    where
        F: Future<Output = Result<T, JobsError>>,
    {
        let mut exchange = exchange;
        match &self.patience {
            Some(patience) => {
                patiently(patience.limit, || !*patience.stop.borrow(), exchange).await
            }
            None => exchange().await,
        }
    }

    #[cfg(test)]
    pub(super) fn with_answer(mut self, answer: Duration) -> Self {
        self.answer = answer;
        self
    }

    /// From here on counts as large, where a test has no time for what is.
    #[cfg(test)]
    pub(super) fn with_large(mut self, large: u64) -> Self {
        self.large = large;
        self
    }

    /// Blobs above this size are not read as a whole.
    pub(super) fn large(&self) -> u64 {
        self.large
    }

    /// Whether the store lives and dies with the process.
    pub(super) fn is_memory(&self) -> bool {
        self.folder.is_none() && !self.is_remote()
    }

    /// The file that is an object of a local store.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// What a failed operation on a file of a local store means.
    pub(super) fn local(&self, action: &str, error: io::Error) -> JobsError {
        let error = Error::Generic { store: "folder", source: Box::new(error) };
        self.explain(action, &error)
    }

    pub(super) fn url(&self) -> &str {
        self.place.url()
    }

    pub(super) fn is_remote(&self) -> bool {
        self.bucket().is_some()
    }

    pub(super) fn bucket(&self) -> Option<&str> {
        self.place.bucket()
    }

    /// Ends an operation on `size` bytes that takes too long.
    pub(super) async fn within<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, JobsError> {
        let limit = self.answer + Duration::from_secs(size / SLOWEST);
        let ended = tokio::time::timeout(limit, operation).await;
        let ended = ended.map_err(|_| self.place.silent(action, limit))?;
        // That there is no such object is an answer to who asks for it.
        let is_absent = matches!(ended, Err(Error::NotFound { .. }));
        let asks = action.starts_with("read ") || action.starts_with("look ");
        if self.is_remote() && (ended.is_ok() || is_absent && asks) {
            self.trust.worked(action);
        }
        Ok(ended)
    }

    /// One try of an operation on `size` bytes.
    pub(super) async fn attempt<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Missed> {
        match self.within(size, action, operation).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.missed(action, &error)),
            Err(error) => Err(Missed { error, was_cut: false }),
        }
    }

    fn missed(&self, action: &str, error: &Error) -> Missed {
        Missed { error: self.explain(action, error), was_cut: was_cut(error) }
    }

    pub(super) fn explain(&self, action: &str, error: &Error) -> JobsError {
        let is_trusted = self.is_remote() && self.trust.holds(action);
        self.place.explain(action, error, is_trusted)
    }

    /// Whether the store answers and its bucket exists.
    pub(super) async fn reach(&self) -> Result<(), JobsError> {
        let action = "list runs";
        if self.folder.is_some() {
            return self.in_folder(action, "runs", local::folders).await.map(drop);
        }
        let mut listing = self.objects.list(Some(&Path::from("runs")));
        match self.within(0, action, listing.try_next()).await? {
            Ok(_) => self.knows_what_is_absent().await,
            Err(error) => Err(self.explain(action, &error)),
        }
    }

    /// Refuses what answers every request with success, as web servers and sign-in pages do: its listings look empty.
    async fn knows_what_is_absent(&self) -> Result<(), JobsError> {
        let name = "runs/nothing";
        match self.entry(name).await {
            Ok(Some(_)) => Err(JobsError::Invalid(format!(
                "{}: the server has {name}, which no agrpo writes: it is no S3 server; check AWS_ENDPOINT",
                self.url()
            ))),
            Err(error @ JobsError::Invalid(_)) => Err(error),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The object's bytes; `None` where there is none.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Bytes>, JobsError> {
        if self.folder.is_some() {
            return self.in_folder(&format!("read {name}"), name, local::read).await;
        }
        self.patiently(|| persistently(|| self.read_once(name))).await
    }

    async fn read_once(&self, name: &str) -> Result<Option<Bytes>, Missed> {
        let action = format!("read {name}");
        let path = Path::from(name);
        let found = match self.within(0, &action, self.objects.get(&path)).await {
            Ok(Ok(found)) => found,
            Ok(Err(Error::NotFound { source, .. })) if !self.place.lacks_bucket(&*source) => {
                return Ok(None);
            }
            Ok(Err(error)) => return Err(self.missed(&action, &error)),
            Err(error) => return Err(Missed { error, was_cut: false }),
        };
        // The server's word sets no time beyond that of the largest object that is read as a whole.
        let size = found.meta.size.min(self.large);
        self.attempt(size, &action, found.bytes()).await.map(Some)
    }

    /// The object's length in bytes; `None` where there is none.
    pub(super) async fn size(&self, name: &str) -> Result<Option<u64>, JobsError> {
        Ok(self.entry(name).await?.map(|entry| entry.size))
    }

    /// `false`: the object was to be created, but something is or was there.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        mode: Mode,
        flush: bool,
    ) -> Result<bool, JobsError> {
        let action = format!("write {name}");
        let size = bytes.len() as u64;
        let write = || async {
            let written = async {
                match &self.folder {
                    Some(folder) => put_file(folder.join(name), bytes.clone(), mode, flush).await,
                    None => self.put_object(name, bytes.clone(), mode).await,
                }
            };
            self.attempt(size, &action, written).await
        };
        self.patiently(|| persistently(write)).await
    }

    async fn put_object(&self, name: &str, bytes: Bytes, mode: Mode) -> Result<bool, Error> {
        let mode = match mode {
            Mode::Create => PutMode::Create,
            Mode::Replace => PutMode::Overwrite,
        };
        let options = PutOptions::from(mode);
        match self.objects.put_opts(&Path::from(name), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes an object that must not exist yet. `None`: done; else what is there, for the caller to
    /// compare: it may be an earlier try of our own.
    pub(super) async fn create(
        &self,
        name: &str,
        bytes: Bytes,
    ) -> Result<Option<Bytes>, JobsError> {
        for attempt in 1..=ATTEMPTS {
            if self.put(name, bytes.clone(), Mode::Create, true).await? {
                return Ok(None);
            }
            if let Some(found) = self.read(name).await? {
                return Ok(Some(found));
            }
            // S3 also refuses while another write is under way that may yet fail: try again.
            tokio::time::sleep(SETTLE * attempt).await;
        }
        Err(JobsError::Unavailable(format!(
            "{}: refused {ATTEMPTS} times to write {name}, yet nothing is there",
            self.url()
        )))
    }

    /// Writes an object, whatever was there.
    pub(super) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), JobsError> {
        self.put(name, bytes, Mode::Replace, true).await.map(drop)
    }

    /// Writes an object that may be lost in a power cut without harm.
    pub(super) async fn hint(&self, name: &str, bytes: Bytes) -> Result<(), JobsError> {
        self.put(name, bytes, Mode::Replace, false).await.map(drop)
    }

    /// Removes an object; its absence is no error.
    pub(super) async fn delete(&self, name: &str) -> Result<(), JobsError> {
        let action = format!("delete {name}");
        if self.folder.is_some() {
            return self.in_folder(&action, name, local::remove).await.map(drop);
        }
        let delete = || async {
            match self.within(0, &action, self.objects.delete(&Path::from(name))).await? {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.explain(&action, &error)),
            }
        };
        self.patiently(delete).await
    }

    /// The last parts of the names of all objects right in a folder, in no order.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, JobsError> {
        if self.folder.is_some() {
            return Ok(self
                .in_folder(&format!("list {folder}"), folder, local::names)
                .await?
                .unwrap_or_default());
        }
        let entries = self.listed(folder).await?.into_iter();
        let part = |entry: Entry| entry.name.rsplit('/').next().map(ToOwned::to_owned);
        Ok(entries.filter_map(part).collect())
    }

    /// Every object below a folder, with its length and age, in no order; in a local store also what is none.
    pub(super) async fn entries(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        if self.folder.is_some() {
            let action = format!("list {folder}");
            return Ok(self.in_folder(&action, folder, local::entries).await?.unwrap_or_default());
        }
        self.listed(folder).await
    }

    /// An object's length and age; `None` where there is none.
    pub(super) async fn entry(&self, name: &str) -> Result<Option<Entry>, JobsError> {
        let action = format!("look for {name}");
        if self.folder.is_some() {
            return self.in_folder(&action, name, local::entry).await;
        }
        let look = || async {
            match self.within(0, &action, self.objects.head(&Path::from(name))).await? {
                Ok(meta) => Ok(Some(Entry::of(&meta))),
                Err(Error::NotFound { source, .. }) if !self.place.lacks_bucket(&*source) => {
                    Ok(None)
                }
                Err(error) => Err(self.explain(&action, &error)),
            }
        };
        self.patiently(look).await
    }

    /// The names of the folders right in a folder, in no order.
    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>, JobsError> {
        let action = format!("list {folder}");
        if self.folder.is_some() {
            return Ok(self.in_folder(&action, folder, local::folders).await?.unwrap_or_default());
        }
        self.listed_folders(folder).await
    }
}

async fn put_file(path: PathBuf, bytes: Bytes, mode: Mode, flush: bool) -> Result<bool, Error> {
    tokio::task::spawn_blocking(move || files::write(&path, &bytes, mode, flush))
        .await?
        .map_err(|error| Error::Generic { store: "folder", source: Box::new(error) })
}
