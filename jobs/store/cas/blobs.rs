//! Blobs by content: written once under their own digest, checked against it on every read.
//!
//! A blob that is already there is written all the same: it may be damaged, and it may be so old that a
//! gc is about to take it; written anew it is neither. Nothing read here is handed on before its digest
//! was computed.

use agrpo_spec::{ArtifactDigest, OutputRecord};
use bytes::Bytes;

use crate::blocking::off_loop;
use crate::error::{JobsError, MADE_AGAIN};
use crate::metrics::{self, Tier};
use crate::store::Store;

pub(crate) fn blob_name(digest: ArtifactDigest) -> String {
    format!("cas/{digest}")
}

async fn digest_of(bytes: &Bytes) -> Result<ArtifactDigest, JobsError> {
    let shared = bytes.clone();
    off_loop(bytes.len(), move || ArtifactDigest::of(&shared)).await
}

impl Store {
    /// Stores bytes under their digest, whatever was there: what is whole is the same, and young again.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<OutputRecord, JobsError> {
        let digest = digest_of(&bytes).await?;
        self.put_digested(digest, bytes).await
    }

    /// Stores bytes whose digest was just computed.
    pub(crate) async fn put_digested(
        &self,
        digest: ArtifactDigest,
        bytes: Bytes,
    ) -> Result<OutputRecord, JobsError> {
        let name = blob_name(digest);
        let size = bytes.len() as u64;
        // Written again even where it stands: a gc goes by its age.
        metrics::bytes_written(size);
        let write = self.write_blob(&name, digest, &bytes);
        let (written, ()) = futures::join!(write, self.keep_on_disk(digest, &bytes));
        written?;
        self.cache.insert(digest, bytes);
        Ok(OutputRecord { digest, size })
    }

    async fn write_blob(
        &self,
        name: &str,
        digest: ArtifactDigest,
        bytes: &Bytes,
    ) -> Result<(), JobsError> {
        if !self.backend.is_remote() || bytes.len() as u64 <= self.backend.large() {
            return self.backend.replace(name, bytes.clone()).await;
        }
        let sent = self.backend.replace_in_parts(name, &bytes.clone().into(), digest).await?;
        sent.map_err(|found| {
            JobsError::Internal(format!("{name} turned into {found} while it was sent"))
        })
    }

    /// Reads a blob and checks it. Data error naming the blob if it is missing, or if two reads of it gave
    /// the same other bytes.
    pub async fn get_blob(&self, digest: ArtifactDigest) -> Result<Bytes, JobsError> {
        let name = blob_name(digest);
        let mut before = vec![];
        loop {
            let Some(bytes) = self.backend.read(&name).await? else {
                return Err(self.missing(digest));
            };
            metrics::bytes_read(bytes.len() as u64);
            let found = digest_of(&bytes).await?;
            if found == digest {
                if !before.is_empty() {
                    self.log_bad_read(&name);
                }
                self.cache.insert(digest, bytes.clone());
                return Ok(bytes);
            }
            if self.is_certain(&name, &mut before, found)? {
                return Err(self.corrupt(digest, bytes.len() as u64, found));
            }
        }
    }

    /// The error about a blob that is not there.
    pub fn missing(&self, digest: ArtifactDigest) -> JobsError {
        let message = format!("{} is missing in {}: {MADE_AGAIN}", blob_name(digest), self.url());
        JobsError::Lost { digest, message }
    }

    pub(crate) fn corrupt(
        &self,
        digest: ArtifactDigest,
        size: u64,
        found: ArtifactDigest,
    ) -> JobsError {
        let message = format!(
            "{} in {} is corrupt: its {size} bytes have the SHA-256 {found}; {MADE_AGAIN}",
            blob_name(digest),
            self.url()
        );
        JobsError::Lost { digest, message }
    }

    /// Reads a blob, from memory where it was checked before.
    pub(crate) async fn cached_blob(&self, digest: ArtifactDigest) -> Result<Bytes, JobsError> {
        let known = self.cache.get(digest);
        metrics::cache_asked(Tier::Memory, known.is_some());
        match known {
            Some(bytes) => Ok(bytes),
            None => self.host_blob(digest).await,
        }
    }

    /// Whether the store has a blob of this name; says nothing about its bytes.
    pub async fn has_blob(&self, digest: ArtifactDigest) -> Result<bool, JobsError> {
        Ok(self.backend.size(&blob_name(digest)).await?.is_some())
    }
}
