//! The handle on a store: its backend, and what this process remembers of it.
//!
//! Opens and configures; what is read and written is in `cas/`, `records/` and `inventory.rs`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::cache::{BlobCache, HostCache, News, References, SpecCache, StreamedBlobs};
use crate::error::JobsError;
use crate::objects::{Backend, Limits, ObjectStore, RetryPolicy, open, over};

/// A handle on a store; clones share connections and the cache of verified blobs.
#[derive(Clone)]
pub struct Store {
    pub(crate) backend: Arc<Backend>,
    pub(crate) cache: Arc<BlobCache>,
    pub(crate) large: Arc<StreamedBlobs>,
    /// Shared with other processes of the host; none of a local store.
    pub(crate) disk: Option<Arc<HostCache>>,
    pub(crate) specs: Arc<SpecCache>,
    pub(crate) references: Arc<Mutex<References>>,
    pub(crate) news: Arc<News>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url()).finish()
    }
}

impl Store {
    /// Opens `file:///folder` or a plain path (created where missing), `s3://bucket[/prefix]` or
    /// `memory://`. `options` are settings by name (AWS_* and
    /// AGRPO_S3_CHECKSUM); their secrets are never shown.
    pub async fn open(url: &str, options: &[(String, String)]) -> Result<Self, JobsError> {
        let backend = open(url, options).await?;
        if backend.is_remote() {
            backend.ping().await?;
        }
        Ok(Self::on(backend))
    }

    /// A store in an object store of the caller's own, which lives as long as the process.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self::on(over(objects))
    }

    pub(crate) fn on(backend: Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            cache: Arc::default(),
            large: Arc::default(),
            disk: None,
            specs: Arc::default(),
            references: Arc::default(),
            news: Arc::default(),
        }
    }

    /// The store's address, in full.
    pub fn url(&self) -> &str {
        self.backend.url()
    }

    /// The same store with other limits for time and memory.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self { backend: Arc::new(self.backend.with_limits(limits)), ..self.clone() }
    }

    /// What its operations are given of time and memory.
    pub fn limits(&self) -> Limits {
        self.backend.limits()
    }

    /// Makes sure that the store creates an object only where there is none; `unique` is a name that no
    /// other process uses. Invalid error where it does not: such a store is not to be written to.
    pub async fn check_creates(&self, unique: &str) -> Result<(), JobsError> {
        self.backend.check_creates(unique).await
    }

    /// Whether a server holds it.
    pub fn is_remote(&self) -> bool {
        self.backend.is_remote()
    }

    /// Whether the store answers, exists and takes writes; leaves nothing behind.
    pub async fn check(&self) -> Result<(), JobsError> {
        self.backend.ping().await?;
        self.backend.replace("check", bytes::Bytes::from_static(b"agrpo")).await?;
        self.backend.delete("check").await
    }

    /// The same store with a cache of a server's blobs in a folder, which all processes of a host may
    /// share: at most `limit` bytes, by default as much as the disk spares, up to 64 GiB. A folder that
    /// cannot be used is a warning in the log; a local store needs none.
    #[must_use]
    pub fn with_cache(&self, folder: &Path, limit: Option<u64>) -> Self {
        if !self.backend.is_remote() || limit == Some(0) {
            return Self { disk: None, ..self.clone() };
        }
        let disk = HostCache::open(folder, limit).map_err(|error| {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "no cache of blobs: the folder cannot be used");
        });
        Self { disk: disk.ok().map(Arc::new), ..self.clone() }
    }

    /// The same store, which asks a server that is away again for so long and logs it; `stop` ends that. Without this
    /// a server has fifteen seconds, and the caller decides.
    #[must_use]
    pub fn with_retry_policy(&self, limit: Duration, stop: watch::Receiver<bool>) -> Self {
        let policy = RetryPolicy { limit, stop };
        Self { backend: Arc::new(self.backend.with_retry_policy(policy)), ..self.clone() }
    }

    /// The same store without what was read before: every blob is read from it and checked anew.
    #[must_use]
    pub fn fresh(&self) -> Self {
        self.with_scratch(self.large.scratch())
    }

    /// The same store with an empty cache, whose copies of large blobs of a server go into a folder.
    #[must_use]
    pub fn with_scratch(&self, folder: Option<PathBuf>) -> Self {
        let large = Arc::new(StreamedBlobs::in_folder(folder));
        let (backend, references) = (Arc::clone(&self.backend), Arc::clone(&self.references));
        let (cache, specs, news) = (Arc::default(), Arc::default(), Arc::clone(&self.news));
        Self { backend, cache, large, disk: None, specs, references, news }
    }
}
