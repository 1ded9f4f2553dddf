//! Blobs by content: named by their digest, and checked against it on every read.
//!
//! A blob that is stored again is written again: the one that stands may be damaged, or so old that a gc is about to
//! take it. No bytes leave this file before their digest was computed.

use std::{fmt::Display, path::Path, sync::Arc};

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;

use super::{files::StreamedBlobs, host::HostCache, memory::BlobCache};
use crate::{
    JobsError, Result, error::MADE_AGAIN, metrics, objects::Objects, paths, span::blocking,
};

/// Hashing more than this at once belongs on a thread that may block.
const QUICK: usize = 1 << 20;

/// The blobs of a store, and what this process and its host remember of them.
#[derive(Clone, Debug)]
pub struct Cas {
    pub(crate) objects: Arc<Objects>,
    pub(super) memory: Arc<BlobCache>,
    pub(super) streamed: Arc<StreamedBlobs>,
    /// Shared with other processes of the host; none of a local store.
    pub(super) host: Option<Arc<HostCache>>,
}

pub(super) async fn digest_of(bytes: &Bytes) -> Result<ArtifactDigest> {
    if bytes.len() <= QUICK {
        return Ok(ArtifactDigest::of(bytes));
    }
    let shared = bytes.clone();
    blocking(move || ArtifactDigest::of(&shared)).await
}

impl Cas {
    pub(crate) fn new(objects: Arc<Objects>) -> Self {
        let streamed = Arc::new(StreamedBlobs::in_folder(None));
        Self { objects, memory: Arc::default(), streamed, host: None }
    }

    pub(crate) fn with_cache(&self, folder: &Path, limit: Option<u64>) -> Self {
        if !self.objects.is_remote() || limit == Some(0) {
            return Self { host: None, ..self.clone() };
        }
        let host = HostCache::open(folder, limit).map_err(|error| {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "no cache of blobs: the folder cannot be used");
        });
        Self { host: host.ok().map(Arc::new), ..self.clone() }
    }

    /// The same without what was read before.
    pub(crate) fn fresh(&self) -> Self {
        let streamed = Arc::new(StreamedBlobs::in_folder(self.streamed.scratch.clone()));
        Self { streamed, ..Self::new(Arc::clone(&self.objects)) }
    }

    /// Reads and checks a blob. Lost if it is missing, or if two reads of it gave the same wrong bytes.
    pub async fn get(&self, digest: ArtifactDigest) -> Result<Bytes> {
        let name = paths::blob(digest);
        let read = || async {
            let Some(bytes) = self.objects.read(&name).await? else { return Ok(None) };
            metrics::count(metrics::READ, bytes.len() as u64);
            let found = digest_of(&bytes).await?;
            Ok(Some(if found == digest { Ok(bytes) } else { Err((bytes.len() as u64, found)) }))
        };
        let bytes = self.sound(digest, self.objects.reread(&name, read).await?)?;
        self.memory.insert(digest, bytes.clone());
        Ok(bytes)
    }

    /// What reads of a blob came to, or that it is missing or has another size and digest.
    pub(super) fn sound<T>(
        &self,
        digest: ArtifactDigest,
        found: Option<Result<T, (u64, ArtifactDigest)>>,
    ) -> Result<T> {
        match found {
            Some(Ok(sound)) => Ok(sound),
            Some(Err((size, found))) => {
                Err(self.lost(digest, format!("its {size} bytes have the SHA-256 {found}")))
            }
            None => Err(self.missing(digest)),
        }
    }

    /// The error about a blob that is not there.
    pub fn missing(&self, digest: ArtifactDigest) -> JobsError {
        let (name, url) = (paths::blob(digest), self.objects.url());
        let message = format!("{name} is missing in {url}: {MADE_AGAIN}");
        JobsError::Lost { digest, message }
    }

    pub(super) fn lost(&self, digest: ArtifactDigest, why: impl Display) -> JobsError {
        let (name, url) = (paths::blob(digest), self.objects.url());
        let message = format!("{name} in {url} is corrupt: {why}; {MADE_AGAIN}");
        JobsError::Lost { digest, message }
    }

    /// Reads a blob, from memory where it was checked before.
    pub(super) async fn cached_blob(&self, digest: ArtifactDigest) -> Result<Bytes> {
        let known = self.memory.get(digest);
        metrics::count_lookups(metrics::MEMORY, known.is_some(), 1);
        match known {
            Some(bytes) => Ok(bytes),
            None => self.host_blob(digest).await,
        }
    }

    /// Whether the store has a blob of this name; says nothing about its bytes.
    pub async fn has(&self, digest: ArtifactDigest) -> Result<bool> {
        Ok(self.objects.size(&paths::blob(digest)).await?.is_some())
    }

    /// Removes a blob; its absence is no error.
    pub async fn delete(&self, digest: ArtifactDigest) -> Result<()> {
        self.objects.delete(&paths::blob(digest)).await
    }

    /// Takes a damaged blob out of the way.
    pub async fn quarantine(&self, digest: ArtifactDigest) -> Result<()> {
        self.objects.quarantine(&paths::blob(digest)).await.map(drop)
    }
}
