//! Contents of any size written under their digest: small ones as bytes, large ones in windows or parts.
//!
//! Large contents stream: a file is hashed, then copied or sent, and never in memory as a whole. Nothing is stored
//! where the bytes are not those of the digest.

use std::io::{self, Write};
use std::{path::Path, sync::Arc};

use agrpo_spec::{ArtifactDigest, Content, Message, OutputRecord, WINDOW};
use bytes::Bytes;

use super::blobs::{Cas, digest_of};
use super::checked::{Blocks, Hashing};
use crate::objects::{Action, Operation, staged};
use crate::{JobsError, Result, failpoints, metrics, paths, regular, span::blocking};

/// Why a content cannot be stored under the digest that it had.
const CHANGED: &str = "it has changed";

/// Writes or overwrites a large file from windows. `None` where the bytes are not those of the digest.
fn copy(path: &Path, content: &Content, digest: ArtifactDigest) -> io::Result<Option<Blocks>> {
    failpoints::write("store::write")?;
    let message = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(message)?;
    let mut hashing = Hashing::default();
    for range in content.ranges(WINDOW) {
        let bytes = content.window(range)?;
        hashing.update(&bytes);
        file.write_all(&bytes)?;
    }
    let blocks = hashing.finish();
    if blocks.digest != digest {
        return Ok(None);
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| message(error.error))?;
    Ok(Some(blocks))
}

/// The error of an operation that read a content: where reading found it damaged, that is the cause.
fn cause(content: &Content, error: JobsError) -> JobsError {
    content.damaged().map_or(error, JobsError::damaged)
}

impl Cas {
    /// Stores bytes under their digest. A blob that is there already is overwritten, which renews its date.
    pub async fn put(&self, bytes: Bytes) -> Result<OutputRecord> {
        let digest = digest_of(&bytes).await?;
        self.put_digested(digest, bytes).await
    }

    /// Stores bytes whose digest was just computed.
    pub(super) async fn put_digested(
        &self,
        digest: ArtifactDigest,
        bytes: Bytes,
    ) -> Result<OutputRecord> {
        let size = bytes.len() as u64;
        let content = Content::from(bytes.clone());
        // Written even where the blob exists: gc deletes by age.
        let write = self.write(digest, &content);
        let (written, ()) = futures::join!(write, self.cache_on_disk(digest, &bytes));
        written?;
        self.memory.insert(digest, bytes);
        Ok(OutputRecord { digest, size })
    }

    /// Stores a content, unless it is large and `stands` finds it stored.
    pub(super) async fn put_unless(
        &self,
        stands: impl Future<Output = Result<bool>>,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<OutputRecord> {
        let size = content.size();
        let bytes = match &content {
            Content::Memory(bytes) => bytes.clone(),
            Content::Elsewhere(_) if self.objects.is_streamed(size) => {
                if !stands.await? {
                    self.write(digest, &content).await?;
                }
                return Ok(OutputRecord { digest, size });
            }
            Content::Elsewhere(_) => {
                let source = content.clone();
                let bytes = blocking(move || source.bytes(size)).await?;
                let bytes = bytes
                    .map_err(|error| cause(&content, self.changed(digest, Message::of(error))))?;
                if digest_of(&bytes).await? != digest {
                    return Err(self.changed(digest, CHANGED.into()));
                }
                bytes
            }
        };
        self.put_digested(digest, bytes).await
    }

    /// Writes a content, over a blob that is there already.
    pub(super) async fn write(&self, digest: ArtifactDigest, content: &Content) -> Result<()> {
        let (name, size) = (paths::blob(digest), content.size());
        let written = match (content, self.objects.path(&name)) {
            (Content::Elsewhere(_), Some(path)) => self.write_file(&path, digest, content).await,
            (Content::Memory(bytes), path) if path.is_some() || !self.objects.is_streamed(size) => {
                self.objects.replace(&name, bytes.clone()).await.map(|()| true)
            }
            _ => {
                let sent = self.objects.replace_in_parts(&name, content, digest).await;
                sent.map(|sent| sent.is_ok())
            }
        };
        if !written.map_err(|error| cause(content, error))? {
            return Err(cause(content, self.changed(digest, CHANGED.into())));
        }
        metrics::count(metrics::WRITTEN, size);
        Ok(())
    }

    async fn write_file(
        &self,
        path: &Path,
        digest: ArtifactDigest,
        content: &Content,
    ) -> Result<bool> {
        let (path, content, streamed) =
            (path.to_owned(), content.clone(), Arc::clone(&self.streamed));
        let written = blocking(move || match copy(&path, &content, digest)? {
            Some(blocks) => streamed.note(&path, Arc::new(blocks)).map(|()| true),
            None => Ok(false),
        });
        let name = paths::blob(digest);
        written.await?.map_err(|error| self.objects.local(Operation(Action::Write, &name), error))
    }

    fn changed(&self, digest: ArtifactDigest, why: Message) -> JobsError {
        let (url, name) = (self.objects.url(), paths::blob(digest));
        JobsError::Data(why.reworded(|why| {
            format!(
                "the content to be stored in {url} as {name} no longer exists: {why}; start again"
            )
        }))
    }
}
