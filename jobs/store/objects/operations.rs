//! The few operations that the store is built from: read, write, delete and list whole objects.
//!
//! Writes are atomic on every backend (staging file and rename, or one request). Nothing depends on the order of a
//! listing. Decides nothing about what an error means; `errors.rs` does.

use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};

use super::backend::Backend;
use super::entry::Entry;
use super::files::{self, Mode};
use super::local;
use super::reconnect::{Missed, persistently};
use crate::blocking::blocking;
use crate::error::JobsError;

/// How often a refused write is tried again when nothing turns out to be there.
const ATTEMPTS: u32 = 5;
/// Grows with each of those tries.
const SETTLE: Duration = Duration::from_millis(50);

impl Backend {
    /// Whether the store answers and its bucket exists.
    pub(crate) async fn ping(&self) -> Result<(), JobsError> {
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
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>, JobsError> {
        if self.folder.is_some() {
            return self.in_folder(&format!("read {name}"), name, local::read).await;
        }
        self.with_retry(|| persistently(|| self.read_once(name))).await
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
        let size = found.meta.size.min(self.large());
        self.attempt(size, &action, found.bytes()).await.map(Some)
    }

    /// The object's length in bytes; `None` where there is none.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>, JobsError> {
        Ok(self.entry(name).await?.map(|entry| entry.size))
    }

    /// `false`: the object was to be created, but something is or was there.
    pub(crate) async fn put(
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
        self.with_retry(|| persistently(write)).await
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
    pub(crate) async fn create(
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
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), JobsError> {
        self.put(name, bytes, Mode::Replace, true).await.map(drop)
    }

    /// Writes an object that may be lost in a power cut without harm.
    pub(crate) async fn hint(&self, name: &str, bytes: Bytes) -> Result<(), JobsError> {
        self.put(name, bytes, Mode::Replace, false).await.map(drop)
    }

    /// Removes an object; its absence is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), JobsError> {
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
        self.with_retry(delete).await
    }

    /// The last parts of the names of all objects right in a folder, in no order.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>, JobsError> {
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
    pub(crate) async fn entries(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        if self.folder.is_some() {
            let action = format!("list {folder}");
            return Ok(self.in_folder(&action, folder, local::entries).await?.unwrap_or_default());
        }
        self.listed(folder).await
    }

    /// An object's length and age; `None` where there is none.
    pub(crate) async fn entry(&self, name: &str) -> Result<Option<Entry>, JobsError> {
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
        self.with_retry(look).await
    }

    /// The names of the folders right in a folder, in no order.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>, JobsError> {
        let action = format!("list {folder}");
        if self.folder.is_some() {
            return Ok(self.in_folder(&action, folder, local::folders).await?.unwrap_or_default());
        }
        self.listed_folders(folder).await
    }

    /// Whatever has this name, even if a local store has no file there; `None` where there is nothing.
    pub(crate) async fn look(&self, name: &str) -> Result<Option<Entry>, JobsError> {
        match self.path(name) {
            Some(_) => self.in_folder(&format!("look for {name}"), name, local::look).await,
            None => self.entry(name).await,
        }
    }

    /// Removes whatever has this name, even if a local store has no file there; its absence is no error.
    pub(crate) async fn clear(&self, name: &str) -> Result<(), JobsError> {
        match self.path(name) {
            Some(_) => {
                self.in_folder(&format!("delete {name}"), name, local::clear).await.map(drop)
            }
            None => self.delete(name).await,
        }
    }

    /// Does something with a path of a local store that may be missing.
    pub(crate) async fn in_folder<T: Send + 'static>(
        &self,
        action: &str,
        name: &str,
        work: fn(&FilePath, String) -> io::Result<T>,
    ) -> Result<Option<T>, JobsError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let once = || async {
            let (path, name) = (path.clone(), name.to_owned());
            let work = async { Ok(blocking(move || work(&path, name)).await) };
            match self.within(0, action, work).await? {
                Ok(done) => match done? {
                    Ok(done) => Ok(Some(done)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(self.local(action, error)),
                },
                Err(error) => Err(self.explain(action, &error)),
            }
        };
        self.with_retry(once).await
    }
}

async fn put_file(path: PathBuf, bytes: Bytes, mode: Mode, flush: bool) -> Result<bool, Error> {
    tokio::task::spawn_blocking(move || files::write(&path, &bytes, mode, flush))
        .await?
        .map_err(|error| Error::Generic { store: "folder", source: Box::new(error) })
}
