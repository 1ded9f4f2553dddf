//! The few operations that the store is built from: read, write, delete and list whole objects.
//!
//! Writes are atomic on every backend (staging file and rename, or one request). Nothing depends on the order of a
//! listing. Decides nothing about what an error means; `errors.rs` does.

use std::io::{self, ErrorKind};
use std::{path::Path as FilePath, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error, ObjectStoreExt, PutMode, path::Path};

use super::exchange::Objects;
use super::local::{self, Entry};
use crate::{JobsError, Result, regular, span::blocking};

/// How often a refused write is tried again when nothing turns out to be there.
const ATTEMPTS: u32 = 5;
/// Grows with each of those tries.
const SETTLE: Duration = Duration::from_millis(50);

impl Objects {
    /// Whether the store answers and its bucket exists.
    pub(crate) async fn ping(&self) -> Result<()> {
        if self.path("").is_some() {
            return self.in_folder("list", "runs", local::folders).await.map(drop);
        }
        let mut listing = self.inner.list(Some(&Path::from("runs")));
        self.attempt(0, "list runs", listing.try_next()).await?;
        // What answers every request with success, as web servers and sign-in pages do, has listings that look empty.
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

    /// Whether the store answers, exists and takes writes; leaves nothing behind.
    pub async fn check(&self) -> Result<()> {
        self.ping().await?;
        self.replace("check", Bytes::from_static(b"agrpo")).await?;
        self.delete("check").await
    }

    /// The object's bytes; `None` where there is none.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        if self.path(name).is_some() {
            return self.in_folder("read", name, |path, _| Ok(regular::read(path)?.into())).await;
        }
        let (action, path) = (format!("read {name}"), Path::from(name));
        let read = || async {
            let Some(found) = self.ask(&action, self.inner.get(&path)).await? else {
                return Ok(None);
            };
            // The server's word sets no time beyond that of the largest object that is read as a whole.
            let size = found.meta.size.min(self.limits.whole);
            self.attempt(size, &action, found.bytes()).await.map(Some)
        };
        self.with_retry(read).await
    }

    /// The object's length in bytes; `None` where there is none.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.entry(name).await?.map(|entry| entry.size))
    }

    /// `false`: the object was to be created, but something is or was there.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        mode: PutMode,
        flush: bool,
    ) -> Result<bool> {
        let (action, size) = (format!("write {name}"), bytes.len() as u64);
        let put = || self.attempt(size, &action, self.put_once(name, bytes.clone(), &mode, flush));
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

    /// Writes an object that must not exist. `None`: done; else what is there, which may be an earlier try of our own.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Bytes>> {
        for attempt in 1..=ATTEMPTS {
            if self.put(name, bytes.clone(), PutMode::Create, true).await? {
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
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put(name, bytes, PutMode::Overwrite, true).await.map(drop)
    }

    /// Writes an object that may be lost in a power cut without harm.
    pub(crate) async fn hint(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put(name, bytes, PutMode::Overwrite, false).await.map(drop)
    }

    /// Removes an object; its absence is no error.
    pub async fn delete(&self, name: &str) -> Result<()> {
        if self.path(name).is_some() {
            return self.in_folder("delete", name, local::remove).await.map(drop);
        }
        let (action, path) = (format!("delete {name}"), Path::from(name));
        let delete = async || match self.inner.delete(&path).await {
            Err(Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        };
        self.with_retry(|| self.attempt(0, &action, delete())).await
    }

    /// The last parts of the names of all objects right in a folder, in no order.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        if self.path(folder).is_some() {
            return self.list_local(folder, local::names).await;
        }
        let entries = self.listed(folder).await?.into_iter();
        let part = |entry: Entry| entry.name.rsplit('/').next().map(ToOwned::to_owned);
        Ok(entries.filter_map(part).collect())
    }

    /// Every object below a folder, with its length and age, in no order; in a local store also what is none.
    pub async fn entries(&self, folder: &str) -> Result<Vec<Entry>> {
        match self.path(folder) {
            Some(_) => self.list_local(folder, local::entries).await,
            None => self.listed(folder).await,
        }
    }

    /// The names of the folders right in a folder, in no order.
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
        Ok(self.in_folder("list", folder, list).await?.unwrap_or_default())
    }

    /// An object's length and age; `None` where there is none.
    pub async fn entry(&self, name: &str) -> Result<Option<Entry>> {
        if self.path(name).is_some() {
            return self.in_folder("look for", name, local::entry).await;
        }
        let (action, path) = (format!("look for {name}"), Path::from(name));
        let found = self.with_retry(|| self.ask(&action, self.inner.head(&path))).await?;
        Ok(found.as_ref().map(Entry::of))
    }

    /// Whatever has this name, even if a local store has no file there; `None` where there is nothing.
    pub(crate) async fn look(&self, name: &str) -> Result<Option<Entry>> {
        match self.path(name) {
            Some(_) => self.in_folder("look for", name, local::look).await,
            None => self.entry(name).await,
        }
    }

    /// Removes whatever has this name, even if a local store has no file there; its absence is no error.
    pub(crate) async fn clear(&self, name: &str) -> Result<()> {
        match self.path(name) {
            Some(_) => self.in_folder("delete", name, local::clear).await.map(drop),
            None => self.delete(name).await,
        }
    }

    /// Does something with a path of a local store that may be missing.
    async fn in_folder<T: Send + 'static>(
        &self,
        verb: &str,
        name: &str,
        work: fn(&FilePath, String) -> io::Result<T>,
    ) -> Result<Option<T>> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let (action, name) = (format!("{verb} {name}"), name.to_owned());
        match self.within(0, &action, blocking(move || work(&path, name))).await?? {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.local(&action, error)),
        }
    }

    /// The time by the store's own clock, in milliseconds since 1970.
    pub async fn now_ms(&self) -> Result<i64> {
        let name = "aside/clock";
        self.clock(name).await?.ok_or_else(|| {
            let url = self.url();
            JobsError::Unavailable(format!("{url}: {name} was written and is not there"))
        })
    }

    /// What the store's clock says when it writes this object; `None` where it was deleted at once.
    pub(crate) async fn clock(&self, name: &str) -> Result<Option<i64>> {
        self.replace(name, Bytes::from_static(b"agrpo")).await?;
        let entry = self.entry(name).await?;
        self.delete(name).await?;
        Ok(entry.map(|entry| entry.written_ms))
    }

    /// Moves a damaged object to `aside/`; answers with the store's time in milliseconds since 1970.
    pub async fn quarantine(&self, name: &str) -> Result<i64> {
        let aside = format!("aside/{}", name.replace('/', "-"));
        let bytes = match self.size(name).await? {
            Some(size) if size <= self.limits.whole => self.read(name).await?,
            _ => None,
        };
        let bytes = bytes.unwrap_or_else(|| Bytes::from_static(b"too large to be kept\n"));
        self.replace(&aside, bytes).await?;
        let written = self.entry(&aside).await?.map_or(0, |entry| entry.written_ms);
        self.delete(name).await?;
        tracing::warn!(name, aside, "a damaged object was put aside");
        Ok(written)
    }

    /// Whether something stands in a local store in the place of an object and is no regular file.
    pub async fn is_no_file(&self, name: &str) -> Result<bool> {
        let Some(path) = self.path(name) else { return Ok(false) };
        blocking(move || local::look(&path, String::new()).is_ok_and(|at| at.odd.is_some())).await
    }

    /// What stands in a local store in the place of a folder and is none: its name, and what it is.
    pub async fn misplaced(&self, folders: Vec<String>) -> Result<Vec<(String, &'static str)>> {
        let Some(root) = self.path("") else { return Ok(vec![]) };
        let kind =
            move |name: String| regular::no_folder(&root.join(&name)).map(|kind| (name, kind));
        blocking(move || folders.into_iter().filter_map(kind).collect()).await
    }
}
