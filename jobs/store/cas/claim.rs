//! Claims: renews the dates of stored blobs that a new result names, so that gc, which spares young blobs, does not
//! delete them.
//!
//! A small blob is written again; a large file gets a new date where the file system allows it. Checks no bytes.

use agrpo_spec::{ArtifactDigest, Content, OutputRecord};

use super::blobs::Cas;
use crate::{Result, objects::Entry, paths, regular, span::blocking};

impl Cas {
    /// Renews the date of a blob: a gc with a grace above half an hour spares it. False where the store lacks it.
    pub async fn claim(&self, digest: ArtifactDigest) -> Result<bool> {
        self.claim_sized(digest, None).await
    }

    /// The same; false also where the blob has not this size.
    async fn claim_sized(&self, digest: ArtifactDigest, size: Option<u64>) -> Result<bool> {
        let name = paths::blob(digest);
        let Some(entry) = self.objects.entry(&name).await? else { return Ok(false) };
        if size.is_some_and(|size| size != entry.size) {
            return Ok(false);
        }
        if self.is_young(digest, &entry).await? {
            return Ok(true);
        }
        if let Some(path) = self.objects.path(&name) {
            match blocking(move || regular::renew(&path)).await? {
                Ok(()) => return Ok(true),
                // It may be another user's file: it is written again.
                Err(error) => tracing::debug!(%digest, %error, "cannot renew a blob's date"),
            }
        }
        self.write_again(digest, &entry).await.map(|()| true)
    }

    /// Stores a content whose digest was computed; of one that the store has in full length it renews the date alone.
    /// Data error where the content has changed, lost where it is a blob that came from a store.
    pub(super) async fn put_content(
        &self,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<OutputRecord> {
        let claimed = self.claim_sized(digest, Some(content.size()));
        self.put_unless(claimed, digest, content).await
    }

    async fn is_young(&self, digest: ArtifactDigest, entry: &Entry) -> Result<bool> {
        let Some(now) = self.objects.clock(&paths::clock_of(digest)).await? else {
            return Ok(false);
        };
        let age = now.saturating_sub(entry.written_ms);
        Ok(u128::try_from(age).is_ok_and(|age| age < self.objects.limits.young.as_millis()))
    }

    /// Overwrites a blob with the store's bytes of it.
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
