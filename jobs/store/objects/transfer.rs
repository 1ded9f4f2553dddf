//! Bytes on their way to a server and back: whole objects, parts of large ones, and what is done when a
//! connection breaks in their middle.
//!
//! A large object goes up in parts and comes down in pieces, several at a time; a part or a piece that was
//! cut off is moved again, alone. An upload that fails is aborted, so no parts stay behind and cost money;
//! only a process that is killed in the middle leaves some, which a bucket's rule for
//! incomplete uploads (`AbortIncompleteMultipartUpload`) removes. Whether bytes are the right ones is
//! checked before an upload is completed, and by every reader.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use agrpo_spec::{ArtifactDigest, Content, DigestStream};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{Error, MultipartUpload, ObjectStoreExt, PutMultipartOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backend::Backend;
use super::reconnect::{AGAIN, PAUSE, persistently};
use crate::error::JobsError;

/// Bytes of a part; S3 takes no more than 10,000 of them.
const PART: u64 = 16 << 20;
/// Bytes asked for in one request of a download; a whole large object would outlast any request.
const PIECE: u64 = 8 << 20;
/// Parts or pieces moved at a time. Of 256 MiB through 50 ms of latency, a SeaweedFS beside us on two cores gave
/// 85 MB/s one by one, 145 four at a time, 150 eight at a time; it took 58, 68 and 68. Twice or half the bytes a
/// part made 10 % of difference at most on the way up; more bytes a piece, 10 % more on the way down.
const AT_ONCE: usize = 4;
/// Sends a part again whose connection broke.
#[derive(Debug)]
struct AgainInParts;

impl RetryPolicy for AgainInParts {
    fn retry<'life, 'async_trait>(
        &'life self,
        context: RetryContext,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'async_trait>>
    where
        'life: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let is_cut = matches!(context.failure, RetryFailure::Transport(_));
            if !is_cut || context.attempt > AGAIN {
                return false;
            }
            tracing::debug!(attempt = context.attempt, "a part was cut off; once more");
            let doubled = u32::try_from(context.attempt - 1).map_or(u32::MAX, |n| 1 << n.min(16));
            tokio::time::sleep(PAUSE * doubled).await;
            true
        })
    }
}

/// How an upload ended.
enum Sent {
    Whole,
    /// Aborted: the content's digest is this one.
    Other(ArtifactDigest),
}

impl Backend {
    /// Writes a large object in parts, whatever was there; it appears whole or not at all. Where the
    /// content's digest is another one, that is answered and nothing appears.
    pub(crate) async fn replace_in_parts(
        &self,
        name: &str,
        content: &Content,
        digest: ArtifactDigest,
    ) -> Result<Result<(), ArtifactDigest>, JobsError> {
        self.with_retry(|| self.send_once(name, content, digest)).await
    }

    async fn send_once(
        &self,
        name: &str,
        content: &Content,
        digest: ArtifactDigest,
    ) -> Result<Result<(), ArtifactDigest>, JobsError> {
        let action = format!("write {name}");
        let path = Path::from(name);
        let options = PutMultipartOptions::default().with_retry_policy(Arc::new(AgainInParts));
        let begun = self.within(0, &action, self.objects.put_multipart_opts(&path, options));
        let mut upload = begun.await?.map_err(|error| self.explain(&action, &error))?;
        let sending = send(&mut *upload, content, digest);
        let sent = match self.within(content.size(), &action, sending).await {
            Ok(Ok(Sent::Whole)) => return Ok(Ok(())),
            Ok(Ok(Sent::Other(found))) => Ok(Err(found)),
            Ok(Err(error)) => Err(self.explain(&action, &error)),
            Err(silent) => Err(silent),
        };
        // The upload's own error is returned; a server that is gone cannot be cleaned.
        match self.within(0, "abort an upload", upload.abort()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(name, %error, "parts of a failed upload may be left in the bucket");
            }
            Err(error) => {
                tracing::warn!(name, %error, "parts of a failed upload may be left in the bucket");
            }
        }
        sent
    }

    /// Sends an object of this size piece by piece, in order. Ends early when the receiver is dropped.
    pub(crate) async fn stream(
        &self,
        name: &str,
        size: u64,
        pieces: mpsc::Sender<Bytes>,
    ) -> Result<(), JobsError> {
        let path = Path::from(name);
        let ranges = (0..size.div_ceil(PIECE)).map(|n| n * PIECE..size.min((n + 1) * PIECE));
        let reads = ranges.map(|range: Range<u64>| self.piece(name, &path, range));
        let download = async {
            let mut reads =
                std::pin::pin!(futures::StreamExt::buffered(futures::stream::iter(reads), AT_ONCE));
            while let Some(piece) = reads.try_next().await? {
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // Each piece has its own time, and so has all of it.
        match self.within(size, &format!("read {name}"), async { Ok(download.await) }).await? {
            Ok(done) => done,
            Err(error) => Err(self.explain("read", &error)),
        }
    }

    /// Some bytes of an object, asked for again where the connection breaks.
    async fn piece(&self, name: &str, path: &Path, range: Range<u64>) -> Result<Bytes, JobsError> {
        let action = format!("read {name}");
        let ask = || async {
            let read = self.objects.get_range(path, range.clone());
            self.attempt(range.end - range.start, &action, read).await
        };
        self.with_retry(|| persistently(ask)).await
    }
}

/// Sends all parts and completes the upload, unless the bytes turn out to be others.
async fn send(
    upload: &mut dyn MultipartUpload,
    content: &Content,
    digest: ArtifactDigest,
) -> Result<Sent, Error> {
    let mut parts = JoinSet::new();
    let mut stream = DigestStream::default();
    for range in content.ranges(PART) {
        while parts.len() >= AT_ONCE {
            joined(parts.join_next().await)?;
        }
        let (bytes, next) = take_part(content.clone(), range, stream).await?;
        stream = next;
        parts.spawn(upload.put_part(bytes.into()));
    }
    while !parts.is_empty() {
        joined(parts.join_next().await)?;
    }
    match stream.finish() {
        found if found != digest => Ok(Sent::Other(found)),
        _ => upload.complete().await.map(|_| Sent::Whole),
    }
}

fn joined(part: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    match part {
        Some(done) => done?,
        None => Ok(()),
    }
}

/// A part of a content and the digest of everything up to its end.
async fn take_part(
    content: Content,
    range: Range<u64>,
    mut stream: DigestStream,
) -> Result<(Bytes, DigestStream), Error> {
    let part = tokio::task::spawn_blocking(move || {
        let bytes = content.window(range)?;
        stream.update(&bytes);
        Ok::<_, io::Error>((bytes, stream))
    });
    part.await?.map_err(|error| Error::Generic { store: "file", source: Box::new(error) })
}

#[cfg(test)]
mod tests;
