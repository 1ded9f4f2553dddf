//! Blobs by content: named by their digest, and checked against it on every read.
//!
//! A blob that is stored again is written again: the stored one may be damaged, or so old that gc is about to delete
//! it. No bytes leave this file before their digest was computed.

use std::{fmt::Display, path::Path, sync::Arc};

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;

use super::{files::StreamedBlobs, host::HostCache, memory::BlobCache};
use crate::{
    JobsError, Result, error::MADE_AGAIN, metrics, objects::Objects, paths, span::blocking,
};

/// More bytes than this are hashed on a thread that may block.
const QUICK: usize = 1 << 20;

/// The blobs of a store, and the caches of this process and its host.
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
            tracing::warn!(%folder, %error, "the folder cannot be used: this process has no cache of blobs");
        });
        Self { host: host.ok().map(Arc::new), ..self.clone() }
    }

    /// The same with empty caches.
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

    /// Turns the result of `Objects::reread` on a blob into its value, or into an error that it is lost.
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
        let message = format!("{name} is missing in {url}: {MADE_AGAIN}").into();
        JobsError::Lost { digest, message }
    }

    pub(super) fn lost(&self, digest: ArtifactDigest, why: impl Display) -> JobsError {
        let (name, url) = (paths::blob(digest), self.objects.url());
        let message = format!("{name} in {url} is corrupt: {why}; {MADE_AGAIN}").into();
        JobsError::Lost { digest, message }
    }

    /// Whether the store has a blob of this name; says nothing about its bytes.
    pub async fn has(&self, digest: ArtifactDigest) -> Result<bool> {
        Ok(self.objects.size(&paths::blob(digest)).await?.is_some())
    }

    /// Moves a damaged blob to `aside/`.
    pub async fn quarantine(&self, digest: ArtifactDigest) -> Result<()> {
        self.objects.quarantine(&paths::blob(digest)).await.map(drop)
    }
}
