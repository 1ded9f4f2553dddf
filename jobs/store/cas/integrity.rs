//! Integrity: whether stored objects are what their names say, and the quarantine of those that are not.
//!
//! Reads every byte from the store itself, never from memory, in pieces where a blob is large. A damaged object is copied
//! to `aside/` before it is deleted. One bad read is no damage: nothing is moved before two reads agree.

use agrpo_spec::{ArtifactDigest, DigestStream};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::blobs::blob_name;
use crate::blocking::blocking;
use crate::blocking::off_loop;
use crate::cache::checked::OnDisk;
use crate::error::JobsError;
use crate::store::Store;

/// Pieces of a blob on their way from a server.
const UNDER_WAY: usize = 4;

/// What is found under a blob's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The bytes that the name promises; so many.
    Sound(u64),
    /// Nothing.
    Missing,
    /// So many other bytes.
    Corrupt(u64),
}

impl Store {
    /// Reads a blob and compares it with its name. Corrupt where two reads gave the same other bytes.
    pub async fn condition(&self, digest: ArtifactDigest) -> Result<Condition, JobsError> {
        let name = blob_name(digest);
        let mut before = vec![];
        loop {
            let Some((found, size)) = self.digest_stored(&name).await? else {
                return Ok(Condition::Missing);
            };
            if found == digest {
                if !before.is_empty() {
                    self.log_bad_read(&name);
                }
                return Ok(Condition::Sound(size));
            }
            if self.is_certain(&name, &mut before, found)? {
                return Ok(Condition::Corrupt(size));
            }
        }
    }

    /// The digest of what one read of an object gives, and its length; `None` where there is none.
    async fn digest_stored(&self, name: &str) -> Result<Option<(ArtifactDigest, u64)>, JobsError> {
        let Some(size) = self.backend.size(name).await? else { return Ok(None) };
        if size > self.backend.large() && !self.backend.is_memory() {
            return Ok(Some((self.digest_in_pieces(name, size).await?, size)));
        }
        let Some(bytes) = self.backend.read(name).await? else { return Ok(None) };
        let found = off_loop(bytes.len(), move || ArtifactDigest::of(&bytes)).await?;
        Ok(Some((found, size)))
    }

    async fn digest_in_pieces(&self, name: &str, size: u64) -> Result<ArtifactDigest, JobsError> {
        if let Some(path) = self.backend.path(name) {
            let read = move || OnDisk::open(&path)?.content().digest();
            let read = blocking(read).await?;
            return read.map_err(|error| self.backend.local(&format!("read {name}"), error));
        }
        let (sender, mut pieces) = mpsc::channel::<Bytes>(UNDER_WAY);
        let hash = blocking(move || {
            let mut stream = DigestStream::default();
            while let Some(piece) = pieces.blocking_recv() {
                stream.update(&piece);
            }
            stream.finish()
        });
        let (sent, found) = futures::join!(self.backend.stream(name, size, sender), hash);
        sent?;
        found
    }

    /// Takes a damaged object out of the way; answers with the store's time in milliseconds since 1970.
    pub async fn quarantine(&self, name: &str) -> Result<i64, JobsError> {
        let aside = format!("aside/{}", name.replace('/', "-"));
        let bytes = match self.backend.size(name).await? {
            Some(size) if size <= self.backend.large() => self.backend.read(name).await?,
            _ => None,
        };
        let bytes = bytes.unwrap_or_else(|| Bytes::from_static(b"too large to be kept\n"));
        self.backend.replace(&aside, bytes).await?;
        let written = self.backend.entry(&aside).await?.map_or(0, |entry| entry.written_ms);
        self.backend.delete(name).await?;
        tracing::warn!(name, aside, "a damaged object was put aside");
        Ok(written)
    }

    /// Takes a damaged blob out of the way.
    pub async fn quarantine_blob(&self, digest: ArtifactDigest) -> Result<(), JobsError> {
        self.quarantine(&blob_name(digest)).await.map(drop)
    }
}
