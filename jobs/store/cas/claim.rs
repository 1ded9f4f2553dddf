//! Blobs that are there already and come into use once more: made young, so that a gc keeps them.
//!
//! A small blob is written again by each writer; a large one need not be. Reads no large blob where the store can make it
//! young by itself, and checks no bytes.

use std::time::Duration;

use agrpo_spec::ArtifactDigest;

use super::blobs::blob_name;
use crate::blocking::blocking;
use crate::error::JobsError;
use crate::objects::Entry;
use crate::store::Store;

/// What was written more recently, by the store's own clock, is young enough: a base that every update hands
/// on would otherwise be made young, and hashed again by others, every time. Far below the grace of any gc.
const YOUNG: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 600 });

impl Store {
    /// Whether the store has a blob, which then is young: a gc whose grace is longer than ten minutes leaves
    /// it for what names it next. Says nothing about its bytes.
    pub async fn claim(&self, digest: ArtifactDigest) -> Result<bool, JobsError> {
        self.claim_sized(digest, None).await
    }

    /// The same for a blob that has to have a size.
    pub(crate) async fn claim_sized(
        &self,
        digest: ArtifactDigest,
        size: Option<u64>,
    ) -> Result<bool, JobsError> {
        let name = blob_name(digest);
        let Some(entry) = self.backend.entry(&name).await? else { return Ok(false) };
        if size.is_some_and(|size| size != entry.size) {
            return Ok(false);
        }
        if self.is_young(digest, &entry).await? {
            return Ok(true);
        }
        if let Some(path) = self.backend.path(&name) {
            let large = self.large.clone();
            match blocking(move || large.renew(&path, digest)).await? {
                Ok(()) => return Ok(true),
                // Another person's file, for one: it is written again.
                Err(error) => tracing::debug!(%digest, %error, "cannot touch a blob"),
            }
        }
        self.write_again(digest, &entry).await.map(|()| true)
    }

    async fn is_young(&self, digest: ArtifactDigest, entry: &Entry) -> Result<bool, JobsError> {
        // Of its own name: another process may ask at the same time.
        let Some(now) = self.clock(&format!("aside/clock-{digest}")).await? else {
            return Ok(false);
        };
        let age = now.saturating_sub(entry.written_ms);
        Ok(u128::try_from(age).is_ok_and(|age| age < YOUNG.as_millis()))
    }

    /// Writes a blob anew from the store's own bytes.
    async fn write_again(&self, digest: ArtifactDigest, entry: &Entry) -> Result<(), JobsError> {
        if entry.size > self.backend.large() && !self.backend.is_memory() {
            let content = self.content(digest, entry.size).await?;
            return self.write_large(digest, content).await;
        }
        let bytes = self.get_blob(digest).await?;
        self.put_digested(digest, bytes).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
