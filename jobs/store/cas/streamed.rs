//! Streamed blobs: those too large for memory, checked as they stream past and read in windows of a file.
//!
//! A local store's file is hashed when a process first opens it, and again when its size or time of change differs; in
//! between each read is checked by itself (`cache/checked.rs`). An object of a server is copied into a file first. Wrong
//! bytes are read again, and the blob is corrupt where two passes find the same digest. Windows are read, not mapped: a
//! file that is cut short is then an error and not a signal.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::blobs::blob_name;
use crate::blocking::blocking;
use crate::cache::checked::{Hashing, OnDisk};
use crate::cache::{Fetched, Known};
use crate::error::{JobsError, MADE_AGAIN};
use crate::metrics::{self, Tier};
use crate::store::Store;

/// Pieces on their way from a server to a file.
const UNDER_WAY: usize = 4;

/// Writes pieces into a file from its start as they come.
fn collect(mut file: File, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Fetched> {
    let mut hashing = Hashing::default();
    file.rewind()?;
    while let Some(piece) = pieces.blocking_recv() {
        hashing.update(&piece);
        file.write_all(&piece)?;
    }
    Ok(Fetched { file, blocks: Arc::new(hashing.finish()) })
}

impl Store {
    /// A blob of `size` bytes, in memory where it is small. Data error naming the blob if it is missing
    /// or damaged.
    pub async fn content(&self, digest: ArtifactDigest, size: u64) -> Result<Content, JobsError> {
        let content = if size <= self.backend.large() || self.backend.is_memory() {
            self.cached_blob(digest).await?.into()
        } else if let Some(path) = self.backend.path(&blob_name(digest)) {
            self.large_file(digest, path).await?
        } else {
            self.large_object(digest, size).await?
        };
        let found = content.size();
        if found != size {
            return Err(JobsError::Data(format!(
                "{} in {} has {found} bytes, expected {size}: what names it is corrupt",
                blob_name(digest),
                self.url()
            )));
        }
        Ok(content)
    }

    /// A blob of whatever size; errors as for [`Store::content`].
    pub async fn open_blob(&self, digest: ArtifactDigest) -> Result<Content, JobsError> {
        if let Some(bytes) = self.cache.get(digest) {
            metrics::cache_asked(Tier::Memory, true);
            return Ok(bytes.into());
        }
        match self.backend.size(&blob_name(digest)).await? {
            Some(size) => self.content(digest, size).await,
            None => Err(self.missing(digest)),
        }
    }

    /// The length of a blob that was read and checked, however large it is.
    pub async fn verified_size(&self, digest: ArtifactDigest) -> Result<u64, JobsError> {
        match self.backend.size(&blob_name(digest)).await? {
            Some(size) if size > self.backend.large() && !self.backend.is_memory() => {
                Ok(self.content(digest, size).await?.size())
            }
            _ => Ok(self.get_blob(digest).await?.len() as u64),
        }
    }

    async fn large_file(
        &self,
        digest: ArtifactDigest,
        path: PathBuf,
    ) -> Result<Content, JobsError> {
        let turn = self.large.turn(digest);
        let _turn = turn.lock().await;
        let _place = self.large.place().await;
        let (name, mut before) = (blob_name(digest), vec![]);
        loop {
            let (large, path) = (Arc::clone(&self.large), path.clone());
            match blocking(move || large.check(&path, digest)).await? {
                Ok(Ok(disk)) => {
                    if !before.is_empty() {
                        self.log_bad_read(&name);
                    }
                    return Ok(disk.content());
                }
                Ok(Err((size, found))) => {
                    if self.is_certain(&name, &mut before, found)? {
                        return Err(self.corrupt(digest, size, found));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(self.missing(digest));
                }
                Err(error) => return Err(self.backend.local(&format!("read {name}"), error)),
            }
        }
    }

    async fn large_object(&self, digest: ArtifactDigest, size: u64) -> Result<Content, JobsError> {
        let turn = self.large.turn(digest);
        let _turn = turn.lock().await;
        if let Some(Known::Copied(copy, _)) = self.large.get(digest) {
            return Ok(Content::Elsewhere(copy));
        }
        if let Some(content) = self.host_object(digest, size).await? {
            return Ok(content);
        }
        let large = Arc::clone(&self.large);
        let scratch = |error| self.scratch_failed(digest, size, &error);
        let file = blocking(move || large.nameless()).await?.map_err(scratch)?;
        let Fetched { file, blocks } = self.download(digest, size, file).await?.map_err(scratch)?;
        let copy = Arc::new(OnDisk::checked(file, Arc::clone(&blocks)));
        self.large.insert(digest, Known::Copied(Arc::clone(&copy), blocks));
        Ok(Content::Elsewhere(copy))
    }

    /// A server's object in a file, checked, and fetched again where it is not what its name says. `Ok(Err(_))`:
    /// what the file system says.
    pub(crate) async fn download(
        &self,
        digest: ArtifactDigest,
        size: u64,
        file: File,
    ) -> Result<io::Result<Fetched>, JobsError> {
        let _place = self.large.place().await;
        let name = blob_name(digest);
        match self.backend.size(&name).await? {
            None => return Err(self.missing(digest)),
            Some(found) if found != size => return Err(self.cut(digest, found, size)),
            Some(_) => {}
        }
        let (mut file, mut before) = (file, vec![]);
        loop {
            let (sender, pieces) = mpsc::channel(UNDER_WAY);
            let (sent, collected) = futures::join!(
                self.backend.stream(&name, size, sender),
                blocking(move || collect(file, pieces)),
            );
            // A full disk ends the stream too: it is the cause, so it is returned.
            let fetched = match collected? {
                Ok(collected) => collected,
                Err(error) => return Ok(Err(error)),
            };
            sent?;
            metrics::bytes_read(size);
            let found = fetched.blocks.digest();
            if found == digest {
                if !before.is_empty() {
                    self.log_bad_read(&name);
                }
                return Ok(Ok(fetched));
            }
            if self.is_certain(&name, &mut before, found)? {
                return Err(self.corrupt(digest, size, found));
            }
            file = fetched.file;
        }
    }

    fn cut(&self, digest: ArtifactDigest, found: u64, size: u64) -> JobsError {
        let (name, url) = (blob_name(digest), self.url());
        let message = format!(
            "{name} in {url} is corrupt: it has {found} bytes, expected {size}; {MADE_AGAIN}"
        );
        JobsError::Lost { digest, message }
    }

    fn scratch_failed(&self, digest: ArtifactDigest, size: u64, error: &io::Error) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot keep a copy of {} ({size} bytes) in the folder for temporary files: {error}; \
             free some room there",
            self.url(),
            blob_name(digest)
        ))
    }
}

#[cfg(test)]
mod tests;
