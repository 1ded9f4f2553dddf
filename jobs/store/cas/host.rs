//! A server's blobs through the host's cache: looked up there, else fetched once for all processes.
//!
//! Everything from the cache is hashed before it is used; of a large blob, every part again when it is read. Whatever
//! fails in the cache, the server is asked instead. `get_blob` and replay, which ask what the server holds, bypass it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;

use crate::blocking::blocking;
use crate::cache::Fetched;
use crate::cache::checked::OnDisk;
use crate::cache::{HostCache, SMALLEST};
use crate::error::JobsError;
use crate::metrics::{self, Tier};
use crate::regular;
use crate::store::Store;

impl Store {
    fn host_cache(&self) -> Option<Arc<HostCache>> {
        self.disk.as_ref().filter(|disk| disk.is_on()).map(Arc::clone)
    }

    /// Keeps a blob for the processes of this host.
    pub(crate) async fn keep_on_disk(&self, digest: ArtifactDigest, bytes: &Bytes) {
        let Some(disk) = self.host_cache().filter(|_| bytes.len() as u64 >= SMALLEST) else {
            return;
        };
        let (keeping, bytes) = (Arc::clone(&disk), bytes.clone());
        match blocking(move || keeping.put(digest, &bytes)).await {
            Ok(kept) => drop(or_off(&disk, kept)),
            Err(error) => tracing::debug!(%error, "a blob was not kept"),
        }
    }

    /// A blob that fits into memory.
    pub(crate) async fn host_blob(&self, digest: ArtifactDigest) -> Result<Bytes, JobsError> {
        let Some(disk) = self.host_cache() else { return self.get_blob(digest).await };
        let known = self.cached_bytes(&disk, digest).await?;
        metrics::cache_asked(Tier::Disk, known.is_some());
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let turn = disk.turn(digest, self.backend.large()).await;
        // Another process may have fetched it meanwhile.
        if let Some(bytes) = self.cached_bytes(&disk, digest).await? {
            return Ok(bytes);
        }
        let bytes = self.get_blob(digest).await?;
        self.keep_on_disk(digest, &bytes).await;
        drop(turn);
        Ok(bytes)
    }

    async fn cached_bytes(
        &self,
        disk: &Arc<HostCache>,
        digest: ArtifactDigest,
    ) -> Result<Option<Bytes>, JobsError> {
        let looked = Arc::clone(disk);
        let found = blocking(move || {
            let bytes = looked.read(digest)?;
            if ArtifactDigest::of(&bytes) == digest {
                return Ok(Some(bytes));
            }
            looked.discard(digest);
            Ok(None)
        });
        let bytes = or_off(disk, found.await?).flatten();
        if let Some(bytes) = &bytes {
            self.cache.insert(digest, bytes.clone());
        }
        Ok(bytes)
    }

    /// A blob too large for memory. None where the cache has no room for it.
    pub(crate) async fn host_object(
        &self,
        digest: ArtifactDigest,
        size: u64,
    ) -> Result<Option<Content>, JobsError> {
        let Some(disk) = self.host_cache() else { return Ok(None) };
        let known = self.cached_file(&disk, digest).await?;
        metrics::cache_asked(Tier::Disk, known.is_some());
        if let Some(found) = known {
            return Ok(Some(found.content()));
        }
        let turn = disk.turn(digest, size).await;
        if let Some(found) = self.cached_file(&disk, digest).await? {
            return Ok(Some(found.content()));
        }
        let reserving = Arc::clone(&disk);
        let reserved = blocking(move || {
            let draft = reserving.reserve(size)?;
            draft.map(|draft| Ok((draft.file()?, draft))).transpose()
        });
        let Some(Some((file, draft))) = or_off(&disk, reserved.await?) else { return Ok(None) };
        let fetched = self.download(digest, size, file).await?;
        let Some(fetched) = or_off(&disk, fetched) else { return Ok(None) };
        let Fetched { file, blocks } = fetched;
        let fetched = OnDisk::checked(file, Arc::clone(&blocks));
        let (keeping, large) = (Arc::clone(&disk), Arc::clone(&self.large));
        let kept = blocking(move || {
            keeping.keep(draft, digest)?;
            large.note(&keeping.path(digest), blocks)
        });
        // Thrown away by now, or not: what was fetched is open.
        or_off(&disk, kept.await?);
        drop(turn);
        Ok(Some(fetched.content()))
    }

    async fn cached_file(
        &self,
        disk: &Arc<HostCache>,
        digest: ArtifactDigest,
    ) -> Result<Option<OnDisk>, JobsError> {
        let _place = self.large.place().await;
        let (looked, large) = (Arc::clone(disk), Arc::clone(&self.large));
        let found = blocking(move || {
            let path = looked.path(digest);
            HostCache::touch(&regular::open(&path)?);
            match large.check(&path, digest)? {
                Ok(found) => Ok(Some(found)),
                Err(_) => {
                    looked.discard(digest);
                    Ok(None)
                }
            }
        });
        Ok(or_off(disk, found.await?).flatten())
    }
}

/// What a look into the cache gave; a cache that fails is turned off.
fn or_off<T>(disk: &HostCache, looked: io::Result<T>) -> Option<T> {
    match looked {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            disk.give_up(&error);
            None
        }
    }
}
