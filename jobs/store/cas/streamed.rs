//! Streamed blobs: those too large for memory, checked as they stream past and read in windows of a file.
//!
//! A local store's file is read where it is; a server's object is copied into a file first. Wrong bytes are read
//! again, and the blob is corrupt where two passes find the same digest. Windows are read, not mapped: a file that is
//! cut short is then an error and not a signal.

use std::io::{self, Seek, Write};
use std::{fs::File, path::PathBuf, sync::Arc};

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::blobs::Cas;
use super::checked::{Hashing, OnDisk};
use super::files::{Fetched, Known};
use crate::{JobsError, Result, metrics, paths, span::blocking};

/// Pieces of a blob on their way from a server.
pub(super) const UNDER_WAY: usize = 4;

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

impl Cas {
    /// A blob of `size` bytes, in memory where it is small. Lost if it is missing or damaged.
    pub(crate) async fn content(&self, digest: ArtifactDigest, size: u64) -> Result<Content> {
        let content = if !self.objects.is_streamed(size) {
            self.cached_blob(digest).await?.into()
        } else if let Some(path) = self.objects.path(&paths::blob(digest)) {
            self.large_file(digest, path).await?
        } else {
            self.large_object(digest, size).await?
        };
        let found = content.size();
        if found != size {
            return Err(JobsError::Data(format!(
                "{} in {} has {found} bytes, expected {size}: what names it is corrupt",
                paths::blob(digest),
                self.objects.url()
            )));
        }
        Ok(content)
    }

    /// A blob of whatever size; errors as for `content`.
    pub async fn open(&self, digest: ArtifactDigest) -> Result<Content> {
        if let Some(bytes) = self.memory.get(digest) {
            metrics::count_lookups(metrics::MEMORY, true, 1);
            return Ok(bytes.into());
        }
        match self.objects.size(&paths::blob(digest)).await? {
            Some(size) => self.content(digest, size).await,
            None => Err(self.missing(digest)),
        }
    }

    /// The length of a blob that was read and checked, however large it is.
    pub async fn verified_size(&self, digest: ArtifactDigest) -> Result<u64> {
        match self.objects.size(&paths::blob(digest)).await? {
            Some(size) if self.objects.is_streamed(size) => {
                Ok(self.content(digest, size).await?.size())
            }
            _ => Ok(self.get(digest).await?.len() as u64),
        }
    }

    async fn large_file(&self, digest: ArtifactDigest, path: PathBuf) -> Result<Content> {
        let turn = self.streamed.turn(digest);
        let _turn = turn.lock().await;
        let _place = self.streamed.place().await;
        let name = paths::blob(digest);
        let read = || async {
            let (streamed, path) = (Arc::clone(&self.streamed), path.clone());
            match blocking(move || streamed.check(&path, digest)).await? {
                Ok(checked) => Ok(Some(checked)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.objects.local(&format!("read {name}"), error)),
            }
        };
        Ok(self.sound(digest, self.objects.reread(&name, read).await?)?.content())
    }

    async fn large_object(&self, digest: ArtifactDigest, size: u64) -> Result<Content> {
        let turn = self.streamed.turn(digest);
        let _turn = turn.lock().await;
        if let Some(Known::Copied(copy, _)) = self.streamed.get(digest) {
            return Ok(Content::Elsewhere(copy));
        }
        if let Some(content) = self.host_object(digest, size).await? {
            return Ok(content);
        }
        let large = Arc::clone(&self.streamed);
        let scratch = |error| {
            JobsError::Unavailable(format!(
                "{}: cannot keep a copy of {} ({size} bytes) in the folder for temporary files: {error}; \
                 free some room there",
                self.objects.url(),
                paths::blob(digest)
            ))
        };
        let file = blocking(move || large.nameless()).await?.map_err(scratch)?;
        let Fetched { file, blocks } = self.download(digest, size, file).await?.map_err(scratch)?;
        let copy = Arc::new(OnDisk::checked(file, Arc::clone(&blocks)));
        self.streamed.insert(digest, Known::Copied(Arc::clone(&copy), blocks));
        Ok(Content::Elsewhere(copy))
    }

    /// Copies a server's object into a file, again where its bytes are wrong. `Ok(Err(_))`: an error of the file.
    pub(super) async fn download(
        &self,
        digest: ArtifactDigest,
        size: u64,
        file: File,
    ) -> Result<io::Result<Fetched>> {
        let _place = self.streamed.place().await;
        let name = paths::blob(digest);
        match self.objects.size(&name).await? {
            None => return Err(self.missing(digest)),
            Some(found) if found != size => {
                return Err(self.lost(digest, format!("it has {found} bytes, expected {size}")));
            }
            Some(_) => {}
        }
        let read = || {
            let (sender, pieces) = mpsc::channel(UNDER_WAY);
            let target = file.try_clone();
            let collect = blocking(move || collect(target?, pieces));
            let stream = self.objects.stream(&name, size, sender);
            async move {
                let (sent, collected) = futures::join!(stream, collect);
                // A full disk ends the stream too: it is the cause, so it is returned.
                let fetched = match collected? {
                    Ok(fetched) => fetched,
                    Err(error) => return Ok(Some(Ok(Err(error)))),
                };
                sent?;
                metrics::count(metrics::READ, size);
                let found = fetched.blocks.digest;
                Ok(Some(if found == digest { Ok(Ok(fetched)) } else { Err((size, found)) }))
            }
        };
        self.sound(digest, self.objects.reread(&name, read).await?)
    }
}

#[cfg(test)]
mod tests;
