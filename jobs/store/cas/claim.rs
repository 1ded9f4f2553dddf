//! Makes stored blobs young, so that a gc keeps them for what names them next.
//!
//! A small blob is written again; of a large one the store sets the time where it can. Checks no bytes.

use std::sync::Arc;

use agrpo_spec::ArtifactDigest;

use super::blobs::Cas;
use crate::{Result, objects::Entry, paths, span::blocking};

impl Cas {
    /// Whether the store has a blob, which then is young: a gc with a grace above ten minutes keeps it.
    pub async fn claim(&self, digest: ArtifactDigest) -> Result<bool> {
        self.claim_sized(digest, None).await
    }

    /// The same for a blob that has to have a size.
    pub(super) async fn claim_sized(
        &self,
        digest: ArtifactDigest,
        size: Option<u64>,
    ) -> Result<bool> {
        let name = paths::blob(digest);
        let Some(entry) = self.objects.entry(&name).await? else { return Ok(false) };
        if size.is_some_and(|size| size != entry.size) {
            return Ok(false);
        }
        if self.is_young(digest, &entry).await? {
            return Ok(true);
        }
        if let Some(path) = self.objects.path(&name) {
            let streamed = Arc::clone(&self.streamed);
            match blocking(move || streamed.renew(&path, digest)).await? {
                Ok(()) => return Ok(true),
                // Another person's file, for one: it is written again.
                Err(error) => tracing::debug!(%digest, %error, "cannot touch a blob"),
            }
        }
        self.write_again(digest, &entry).await.map(|()| true)
    }

    async fn is_young(&self, digest: ArtifactDigest, entry: &Entry) -> Result<bool> {
        // Of its own name: another process may ask at the same time.
        let Some(now) = self.objects.clock(&format!("aside/clock-{digest}")).await? else {
            return Ok(false);
        };
        let age = now.saturating_sub(entry.written_ms);
        Ok(u128::try_from(age).is_ok_and(|age| age < self.objects.limits.young.as_millis()))
    }

    /// Writes a blob anew from the store's own bytes.
    async fn write_again(&self, digest: ArtifactDigest, entry: &Entry) -> Result<()> {
        if self.objects.is_streamed(entry.size) {
            let content = self.content(digest, entry.size).await?;
            return self.write(digest, &content).await;
        }
        let bytes = self.get(digest).await?;
        self.put_digested(digest, bytes).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
