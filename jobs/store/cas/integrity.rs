//! Integrity: whether stored blobs are what their names say.
//!
//! Reads every byte from the store itself, never from memory, in pieces where a blob is large. One bad read is no
//! damage.

use agrpo_spec::{ArtifactDigest, DigestStream};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::blobs::{Cas, digest_of};
use super::{checked::OnDisk, download::UNDER_WAY};
use crate::objects::{Action, Operation};
use crate::{Result, paths, span::blocking};

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

impl Cas {
    /// Reads a blob and compares it with its name. Corrupt where two reads gave the same other bytes.
    pub async fn condition(&self, digest: ArtifactDigest) -> Result<Condition> {
        let name = paths::blob(digest);
        let read = || async {
            let Some((size, found)) = self.digest_stored(&name).await? else { return Ok(None) };
            Ok(Some(if found == digest { Ok(size) } else { Err((size, found)) }))
        };
        Ok(match self.objects.reread(&name, read).await? {
            Some(Ok(size)) => Condition::Sound(size),
            Some(Err((size, _))) => Condition::Corrupt(size),
            None => Condition::Missing,
        })
    }

    /// The length and the digest of what one read of an object gives; `None` where there is none.
    async fn digest_stored(&self, name: &str) -> Result<Option<(u64, ArtifactDigest)>> {
        let Some(size) = self.objects.size(name).await? else { return Ok(None) };
        if self.objects.is_streamed(size) {
            return Ok(Some((size, self.digest_in_pieces(name, size).await?)));
        }
        let Some(bytes) = self.objects.read(name).await? else { return Ok(None) };
        Ok(Some((size, digest_of(&bytes).await?)))
    }

    async fn digest_in_pieces(&self, name: &str, size: u64) -> Result<ArtifactDigest> {
        if let Some(path) = self.objects.path(name) {
            let read = move || OnDisk::open(&path)?.content().digest();
            let read = blocking(read).await?;
            return read.map_err(|error| self.objects.local(Operation(Action::Read, name), error));
        }
        let (sender, mut pieces) = mpsc::channel::<Bytes>(UNDER_WAY);
        let hash = blocking(move || {
            let mut stream = DigestStream::default();
            while let Some(piece) = pieces.blocking_recv() {
                stream.update(&piece);
            }
            stream.finish()
        });
        let (sent, found) = futures::join!(self.objects.stream(name, size, sender), hash);
        sent?;
        found
    }
}
