//! Blobs by content: written once under their own digest, checked against it on every read.
//!
//! A blob that is already there is compared before it counts as written, and replaced if it is
//! damaged. Nothing read here is handed on before its digest was computed.

use agrpo_spec::{ArtifactDigest, OutputRecord};
use bytes::Bytes;

use super::Store;
use crate::error::JobsError;

/// Hashing more than this at once belongs on a thread that may block.
const QUICK: usize = 1 << 20;

pub(super) fn blob_name(digest: ArtifactDigest) -> String {
    format!("cas/{digest}")
}

/// Runs work whose length follows from `bytes` where it holds up nobody.
pub(super) async fn off_loop<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobsError> {
    if bytes <= QUICK {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| JobsError::Internal(format!("hashing stopped: {error}")))
}

async fn digest_of(bytes: &Bytes) -> Result<ArtifactDigest, JobsError> {
    let shared = bytes.clone();
    off_loop(bytes.len(), move || ArtifactDigest::of(&shared)).await
}

impl Store {
    /// Stores bytes under their digest; nothing is written where they already are.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<OutputRecord, JobsError> {
        let digest = digest_of(&bytes).await?;
        self.put_digested(digest, bytes).await
    }

    /// Stores bytes whose digest was just computed.
    pub(super) async fn put_digested(
        &self,
        digest: ArtifactDigest,
        bytes: Bytes,
    ) -> Result<OutputRecord, JobsError> {
        let name = blob_name(digest);
        let size = bytes.len() as u64;
        let in_parts = self.backend.is_remote() && size > self.backend.large();
        // Wholly known bytes need no second writing, but somebody may have removed them since.
        let known = self.cache.contains(digest);
        let is_there = (known || in_parts) && self.backend.size(&name).await? == Some(size);
        if !(is_there && known) {
            let write = self.write_blob(&name, digest, &bytes, in_parts && is_there);
            let (written, ()) = futures::join!(write, self.keep_on_disk(digest, &bytes));
            written?;
        }
        self.cache.insert(digest, bytes);
        Ok(OutputRecord { digest, size })
    }

    /// Writes a blob; `may_stand` where the server has one of this name and length.
    async fn write_blob(
        &self,
        name: &str,
        digest: ArtifactDigest,
        bytes: &Bytes,
        may_stand: bool,
    ) -> Result<(), JobsError> {
        if !self.backend.is_remote() {
            return self.create_or_mend(name, digest, bytes).await;
        }
        if bytes.len() as u64 <= self.backend.large() {
            // One request, whatever is there: the same bytes, or damaged ones.
            return self.backend.replace(name, bytes.clone()).await;
        }
        if may_stand && self.holds(name, digest).await? {
            return Ok(());
        }
        let sent = self.backend.replace_in_parts(name, &bytes.clone().into(), digest).await?;
        sent.map_err(|found| {
            JobsError::Internal(format!("{name} turned into {found} while it was sent"))
        })
    }

    async fn create_or_mend(
        &self,
        name: &str,
        digest: ArtifactDigest,
        bytes: &Bytes,
    ) -> Result<(), JobsError> {
        match self.backend.create(name, bytes.clone()).await? {
            Some(found) if found != *bytes => {
                tracing::warn!(%digest, "replacing a damaged blob by what was computed");
                self.backend.replace(name, bytes.clone()).await
            }
            _ => Ok(()),
        }
    }

    async fn holds(&self, name: &str, digest: ArtifactDigest) -> Result<bool, JobsError> {
        match self.backend.read(name).await? {
            Some(found) => Ok(digest_of(&found).await? == digest),
            None => Ok(false),
        }
    }

    /// Reads a blob and checks it. Data error naming the blob if it is missing or damaged.
    pub async fn get_blob(&self, digest: ArtifactDigest) -> Result<Bytes, JobsError> {
        let name = blob_name(digest);
        let Some(bytes) = self.backend.read(&name).await? else {
            return Err(self.missing(digest));
        };
        let found = digest_of(&bytes).await?;
        if found != digest {
            return Err(self.corrupt(digest, bytes.len() as u64, found));
        }
        self.cache.insert(digest, bytes.clone());
        Ok(bytes)
    }

    pub(super) fn missing(&self, digest: ArtifactDigest) -> JobsError {
        JobsError::Data(format!(
            "{} is missing in {}: compute it again by starting its run again (if the run has gone past \
             it, first delete runs/<run>/stages, which is only an index)",
            blob_name(digest),
            self.url()
        ))
    }

    pub(super) fn corrupt(
        &self,
        digest: ArtifactDigest,
        size: u64,
        found: ArtifactDigest,
    ) -> JobsError {
        JobsError::Data(format!(
            "{} in {} is corrupt: its {size} bytes have the SHA-256 {found}; delete it, then compute it \
             again by starting its run again (if the run has gone past it, first delete \
             runs/<run>/stages, which is only an index)",
            blob_name(digest),
            self.url()
        ))
    }

    /// Reads a blob, from memory where it was checked before.
    pub(super) async fn cached_blob(&self, digest: ArtifactDigest) -> Result<Bytes, JobsError> {
        match self.cache.get(digest) {
            Some(bytes) => Ok(bytes),
            None => self.host_blob(digest).await,
        }
    }

    /// Whether the store has a blob of this name; says nothing about its bytes.
    pub async fn has_blob(&self, digest: ArtifactDigest) -> Result<bool, JobsError> {
        Ok(self.backend.size(&blob_name(digest)).await?.is_some())
    }
}
