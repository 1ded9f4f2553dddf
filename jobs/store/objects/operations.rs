//! The few operations that the store is built from: read, write, delete and list whole objects.
//!
//! Writes are atomic on every backend (staging file and rename, or one request). Nothing depends on the order of a
//! listing. What an error means is decided in `errors.rs`.

use std::io::{self, ErrorKind};
use std::{path::Path as FilePath, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error, ObjectStoreExt, PutMode, path::Path};

use super::action::{Action, Operation};
use super::client::Objects;
use super::local::{self, Entry};
use crate::{JobsError, Result, paths, regular, span::blocking};

/// Tries of a creation that is refused although no object exists.
const ATTEMPTS: u32 = 5;
/// The pause after the first of those tries; it grows by as much with each.
const SETTLE: Duration = Duration::from_millis(50);

impl Objects {
    /// Whether the store answers and its bucket exists.
    pub(crate) async fn ping(&self) -> Result<()> {
        if self.path("").is_some() {
            return self.in_folder(Action::List, "runs", local::folders).await.map(drop);
        }
        let mut listing = self.inner.list(Some(&Path::from("runs")));
        self.attempt(0, Operation(Action::List, "runs"), listing.try_next()).await?;
        // Web servers and sign-in pages answer every request with success: their listings look empty.
        let name = "runs/nothing";
        match self.entry(name).await {
            Ok(Some(_)) => Err(JobsError::invalid(format!(
                "{}: the server has {name}, which no agrpo writes: it is no S3 server; check AWS_ENDPOINT",
                self.url()
            ))),
            Err(error @ JobsError::Invalid(_)) => Err(error),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Whether the store answers, exists and takes writes; leaves nothing behind.
    pub async fn check(&self) -> Result<()> {
        self.ping().await?;
        self.replace("check", Bytes::from_static(b"agrpo")).await?;
        self.delete("check").await
    }

    /// The object's bytes; `None` where there is none.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        if self.path(name).is_some() {
            let read =
                self.in_folder(Action::Read, name, |path, _| Ok(regular::read(path)?.into()));
            return read.await;
        }
        let (operation, path) = (Operation(Action::Read, name), Path::from(name));
        let read = || async {
            let Some(found) = self.ask(operation, self.inner.get(&path)).await? else {
                return Ok(None);
            };
            // A size that the server claims cannot raise the timeout above that of the largest object read as a whole.
            let size = found.meta.size.min(self.limits.whole);
            self.attempt(size, operation, found.bytes()).await.map(Some)
        };
        self.with_retry(read).await
    }

    /// The object's length in bytes; `None` where there is none.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.entry(name).await?.map(|entry| entry.size))
    }

    /// `false`: the object was to be created, but one exists or existed.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        mode: PutMode,
        flush: bool,
    ) -> Result<bool> {
        let (operation, size) = (Operation(Action::Write, name), bytes.len() as u64);
        let once = || self.put_once(name, bytes.clone(), &mode, flush);
        let put = || self.attempt(size, operation, once());
        self.with_retry(put).await
    }

    async fn put_once(
        &self,
        name: &str,
        bytes: Bytes,
        mode: &PutMode,
        flush: bool,
    ) -> Result<bool, Error> {
        if let Some(path) = self.path(name) {
            let is_new = *mode == PutMode::Create;
            let write = move || local::write(&path, &bytes, is_new, flush);
            let written = tokio::task::spawn_blocking(write).await?;
            return written
                .map_err(|error| Error::Generic { store: "folder", source: Box::new(error) });
        }
        match self.inner.put_opts(&Path::from(name), bytes.into(), mode.clone().into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates an object. `None`: done; else the object that exists, which may come from an earlier try of this call.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Bytes>> {
        for attempt in 1..=ATTEMPTS {
            if self.put(name, bytes.clone(), PutMode::Create, true).await? {
                return Ok(None);
            }
            if let Some(found) = self.read(name).await? {
                return Ok(Some(found));
            }
            // S3 also refuses while another write is in progress, which may still fail.
            tokio::time::sleep(SETTLE * attempt).await;
        }
        Err(JobsError::unavailable(format!(
            "{}: refused {ATTEMPTS} times to write {name}, which does not exist",
            self.url()
        )))
    }

    /// Writes or overwrites an object.
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put(name, bytes, PutMode::Overwrite, true).await.map(drop)
    }

    /// Writes an object without flushing it: a power cut may lose it without harm.
    pub(crate) async fn hint(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put(name, bytes, PutMode::Overwrite, false).await.map(drop)
    }

    /// Removes an object; its absence is no error.
    pub async fn delete(&self, name: &str) -> Result<()> {
        if self.path(name).is_some() {
            return self.in_folder(Action::Delete, name, local::remove).await.map(drop);
        }
        let (operation, path) = (Operation(Action::Delete, name), Path::from(name));
        let delete = async || match self.inner.delete(&path).await {
            Err(Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        };
        self.with_retry(|| self.attempt(0, operation, delete())).await
    }

    /// The last parts of the names of all objects directly in a folder, in no order.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        if self.path(folder).is_some() {
            return self.list_local(folder, local::names).await;
        }
        let entries = self.listed(folder).await?.into_iter();
        let part = |entry: Entry| entry.name.rsplit('/').next().map(ToOwned::to_owned);
        Ok(entries.filter_map(part).collect())
    }

    /// Every object below a folder, with length and age, in no order; in a local store also what is no regular file.
    pub async fn entries(&self, folder: &str) -> Result<Vec<Entry>> {
        match self.path(folder) {
            Some(_) => self.list_local(folder, local::entries).await,
            None => self.listed(folder).await,
        }
    }

    /// The names of the folders directly in a folder, in no order.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        match self.path(folder) {
            Some(_) => self.list_local(folder, local::folders).await,
            None => self.listed_folders(folder).await,
        }
    }

    async fn list_local<T: Send + 'static>(
        &self,
        folder: &str,
        list: fn(&FilePath, String) -> io::Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        Ok(self.in_folder(Action::List, folder, list).await?.unwrap_or_default())
    }

    /// An object's length and age; `None` where there is none.
    pub async fn entry(&self, name: &str) -> Result<Option<Entry>> {
        if self.path(name).is_some() {
            return self.in_folder(Action::Look, name, local::entry).await;
        }
        let (operation, path) = (Operation(Action::Look, name), Path::from(name));
        let found = self.with_retry(|| self.ask(operation, self.inner.head(&path))).await?;
        Ok(found.as_ref().map(Entry::of))
    }

    /// The entry of this name, even if it is no regular file; `None` where there is nothing.
    pub(crate) async fn look(&self, name: &str) -> Result<Option<Entry>> {
        match self.path(name) {
            Some(_) => self.in_folder(Action::Look, name, local::look).await,
            None => self.entry(name).await,
        }
    }

    /// Removes the entry of this name, even if it is no regular file; its absence is no error.
    pub(crate) async fn clear(&self, name: &str) -> Result<()> {
        match self.path(name) {
            Some(_) => self.in_folder(Action::Delete, name, local::clear).await.map(drop),
            None => self.delete(name).await,
        }
    }

    /// Works on a path of a local store that may be missing.
    pub(super) async fn in_folder<T: Send + 'static>(
        &self,
        action: Action,
        name: &str,
        work: fn(&FilePath, String) -> io::Result<T>,
    ) -> Result<Option<T>> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let (operation, name) = (Operation(action, name), name.to_owned());
        match self.within(0, operation, blocking(move || work(&path, name))).await?? {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.local(operation, error)),
        }
    }

    /// The time by the store's clock, in milliseconds since 1970.
    pub async fn now_ms(&self) -> Result<i64> {
        self.clock(paths::CLOCK).await?.ok_or_else(|| {
            let (url, name) = (self.url(), paths::CLOCK);
            JobsError::unavailable(format!("{url}: {name} was written and does not exist"))
        })
    }

    /// The time by the store's clock, by writing and deleting this object; `None` where another process deletes it.
    pub(crate) async fn clock(&self, name: &str) -> Result<Option<i64>> {
        self.replace(name, Bytes::from_static(b"agrpo")).await?;
        let entry = self.entry(name).await?;
        self.delete(name).await?;
        Ok(entry.map(|entry| entry.written_ms))
    }

    /// Moves a damaged object to `aside/`; returns the store's time in milliseconds since 1970.
    pub async fn quarantine(&self, name: &str) -> Result<i64> {
        let aside = paths::quarantined(name);
        let bytes = match self.size(name).await? {
            Some(size) if size <= self.limits.whole => self.read(name).await?,
            _ => None,
        };
        let bytes = bytes.unwrap_or_else(|| Bytes::from_static(b"too large to be kept\n"));
        self.replace(&aside, bytes).await?;
        let written = self.entry(&aside).await?.map_or(0, |entry| entry.written_ms);
        self.delete(name).await?;
        tracing::warn!(name, aside, "moved a damaged object to aside/");
        Ok(written)
    }

    /// Whether a local store has something other than a regular file under this name.
    pub async fn is_no_file(&self, name: &str) -> Result<bool> {
        let Some(path) = self.path(name) else { return Ok(false) };
        blocking(move || local::look(&path, String::new()).is_ok_and(|at| at.odd.is_some())).await
    }

    /// Those of these names under which a local store has something other than a folder, and what that is.
    pub async fn misplaced(&self, folders: Vec<String>) -> Result<Vec<(String, &'static str)>> {
        let Some(root) = self.path("") else { return Ok(vec![]) };
        let kind =
            move |name: String| regular::no_folder(&root.join(&name)).map(|kind| (name, kind));
        blocking(move || folders.into_iter().filter_map(kind).collect()).await
    }
}
