//! A server's blobs through the caches: looked up there, else fetched once for all processes of the host.
//!
//! Everything from the host's cache is hashed before it is used, and each part of a large blob again when it is read.
//! Where the cache fails, the server is asked. `Cas::get` and replay, which check what the server holds, bypass it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;

use super::host::{HostCache, SMALLEST};
use super::{blobs::Cas, checked::OnDisk};
use crate::{Result, metrics, span::blocking};

/// The host's cache, as threads share it.
type Host = Arc<HostCache>;

/// Works on the cache's files. `None` where the cache lacks the blob, or where it fails, which turns it off.
async fn look<T: Send + 'static>(
    host: &Host,
    work: impl FnOnce(&HostCache) -> io::Result<T> + Send + 'static,
) -> Result<Option<T>> {
    let shared = Arc::clone(host);
    let found = blocking(move || work(&shared)).await?;
    Ok(or_off(host, found))
}

fn or_off<T>(host: &HostCache, looked: io::Result<T>) -> Option<T> {
    match looked {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            host.give_up(&error);
            None
        }
    }
}

impl Cas {
    fn host_cache(&self) -> Option<Host> {
        self.host.as_ref().filter(|host| host.is_on()).map(Arc::clone)
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

    /// Caches a blob for the processes of this host.
    pub(super) async fn cache_on_disk(&self, digest: ArtifactDigest, bytes: &Bytes) {
        let Some(host) = self.host_cache().filter(|_| bytes.len() as u64 >= SMALLEST) else {
            return;
        };
        let bytes = bytes.clone();
        if let Err(error) = look(&host, move |host| host.put(digest, &bytes)).await {
            tracing::debug!(%error, "the host's cache did not store a blob");
        }
    }

    /// Reads a blob that fits into memory, from the host's cache where it is there.
    pub(super) async fn host_blob(&self, digest: ArtifactDigest) -> Result<Bytes> {
        let Some(host) = self.host_cache() else { return self.get(digest).await };
        let known = self.cached_bytes(&host, digest).await?;
        metrics::count_lookups(metrics::DISK, known.is_some(), 1);
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let turn = host.turn(digest, self.objects.limits.whole).await;
        // Another process may have fetched it meanwhile.
        if let Some(bytes) = self.cached_bytes(&host, digest).await? {
            return Ok(bytes);
        }
        let bytes = self.get(digest).await?;
        self.cache_on_disk(digest, &bytes).await;
        drop(turn);
        Ok(bytes)
    }

    async fn cached_bytes(&self, host: &Host, digest: ArtifactDigest) -> Result<Option<Bytes>> {
        let found = look(host, move |host| {
            let bytes = host.read(digest)?;
            if ArtifactDigest::of(&bytes) == digest {
                return Ok(Some(bytes));
            }
            host.discard(digest);
            Ok(None)
        });
        let bytes = found.await?.flatten();
        if let Some(bytes) = &bytes {
            self.memory.insert(digest, bytes.clone());
        }
        Ok(bytes)
    }

    /// Opens a blob too large for memory in the host's cache. None where the cache has no room for it.
    pub(super) async fn host_object(
        &self,
        digest: ArtifactDigest,
        size: u64,
    ) -> Result<Option<Content>> {
        let Some(host) = self.host_cache() else { return Ok(None) };
        let known = self.cached_file(&host, digest).await?;
        metrics::count_lookups(metrics::DISK, known.is_some(), 1);
        if let Some(found) = known {
            return Ok(Some(found.content()));
        }
        let turn = host.turn(digest, size).await;
        if let Some(found) = self.cached_file(&host, digest).await? {
            return Ok(Some(found.content()));
        }
        let reserved = look(&host, move |host| {
            let draft = host.reserve(size)?;
            draft.map(|draft| Ok((draft.as_file().try_clone()?, draft))).transpose()
        });
        let Some(Some((file, draft))) = reserved.await? else { return Ok(None) };
        let fetched = self.download(digest, size, file).await?;
        let Some((fetched, blocks)) = or_off(&host, fetched) else { return Ok(None) };
        let streamed = Arc::clone(&self.streamed);
        // Another process may have deleted the draft: the fetched file is open, so that is no error.
        look(&host, move |host| {
            host.commit(draft, digest)?;
            streamed.note(&host.path(digest), blocks)
        })
        .await?;
        drop(turn);
        Ok(Some(fetched.content()))
    }

    async fn cached_file(&self, host: &Host, digest: ArtifactDigest) -> Result<Option<OnDisk>> {
        let _place = self.streamed.place().await;
        let streamed = Arc::clone(&self.streamed);
        let found = look(host, move |host| {
            host.file(digest)?;
            let checked = streamed.check(&host.path(digest), digest)?.ok();
            if checked.is_none() {
                host.discard(digest);
            }
            Ok(checked)
        });
        Ok(found.await?.flatten())
    }
}
