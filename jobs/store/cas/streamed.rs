//! Streamed blobs: those too large for memory, checked as they stream past and read in windows of a file.
//!
//! A local store's file is read where it is; a server's object is copied into a file first. Wrong bytes are read
//! again, and the blob is corrupt where two passes find the same wrong digest. Windows are read, not mapped: a file
//! that is truncated gives an error and not a signal.

use std::{io, path::PathBuf, sync::Arc};

use agrpo_spec::{ArtifactDigest, Content, Message};

use super::{blobs::Cas, files::Known};
use crate::objects::{Action, Operation};
use crate::{JobsError, Result, metrics, paths, span::blocking};

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
            return Err(JobsError::data(format!(
                "{} in {} has {found} bytes, expected {size}: the record that names it is corrupt",
                paths::blob(digest),
                self.objects.url()
            )));
        }
        Ok(content)
    }

    /// A blob of any size; errors as for `content`.
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
                Err(error) => Err(self.objects.local(Operation(Action::Read, &name), error)),
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
        let scratch = |error: io::Error| {
            let text = format!(
                "{}: cannot write a copy of {} ({size} bytes) in the folder for temporary files: {error}; \
                 free some room there",
                self.objects.url(),
                paths::blob(digest)
            );
            JobsError::Unavailable(Message::caused_by(text, error))
        };
        let file = blocking(move || large.nameless()).await?.map_err(scratch)?;
        let (copy, blocks) = self.download(digest, size, file).await?.map_err(scratch)?;
        let copy = Arc::new(copy);
        self.streamed.insert(digest, Known::Copied(Arc::clone(&copy), blocks));
        Ok(Content::Elsewhere(copy))
    }
}

#[cfg(test)]
mod tests;
