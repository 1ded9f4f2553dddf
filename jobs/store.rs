//! The store: everything that was ever computed, by name. The truth that queue and workers serve.
//!
//! ```text
//! cas/<sha256>                             blobs, checked on every read
//! stages/<stage digest>                    manifests, written last and created once
//! specs/<stage digest>                     what a hint stands for, written before it is queued
//! runs/<run id>/run.json                   the run's configuration
//! runs/<run id>/versions.json              the versions of stages that compute it
//! runs/<run id>/stages/<key>.<digest>      an index for resume and status; losing it costs time only
//! runs/<run id>/policies/<key>             the same for what makes policies, found without a listing
//! runs/<run id>/failures/<stage digest>    why a stage failed for good
//! runs/<run id>/control.json               who paused or cancelled the run, if anybody did
//! runs/<run id>/retention.json             what is kept of its results
//! runs/<run id>/dropped/<stage digest>     outputs that the run no longer holds
//! runs/<run id>/rewound/<stage>.<unix ms>  a stage computed again for a result that was lost
//! aside/                                   damaged objects that were taken out of the way
//! ```
//!
//! A blob that is stored again is written again, or made young where it is large: its bytes are the same
//! whoever writes them, so that a gc never takes what a writer was told is there.
//!
//! `store/` is the only place that names object_store. Nothing here computes or decides what is next.

mod address;
mod answer;
mod audit;
mod backend;
mod blobs;
mod books;
mod cache;
mod checked;
mod claim;
mod control;
#[cfg(test)]
pub(crate) mod counting;
mod disk;
mod errors;
mod files;
#[cfg(test)]
pub(crate) mod flaky;
mod folders;
mod host;
mod import;
mod kept;
mod large;
mod listing;
mod local;
mod manifests;
mod names;
mod objects;
mod open;
mod probe;
mod records;
mod references;
mod rewound;
mod runs;
mod specs;
#[cfg(test)]
mod tests;
mod transfer;
mod trust;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backend::Backend;
use cache::BlobCache;
use disk::DiskCache;
use large::LargeBlobs;
#[cfg(test)]
use object_store::memory::InMemory;
#[cfg(test)]
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use records::Told;
use references::References;
use specs::SpecCache;
use tokio::sync::{Mutex, watch};

pub use address::Address;
pub(crate) use audit::Condition;
pub(crate) use backend::Entry;
pub use control::{Control, Hold};
pub(crate) use folders::records;
pub use import::Imported;
pub(crate) use kept::LetGo;
pub(crate) use objects::{FOLDERS, OF_RUNS, is_leftover};
pub(crate) use open::read_s3;
pub use records::Unreadable;
pub use rewound::{Rewound, Why};
pub use runs::Failure;

use crate::error::JobsError;

/// A handle on a store; clones share connections and the cache of verified blobs.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
    cache: Arc<BlobCache>,
    large: Arc<LargeBlobs>,
    /// Shared with other processes of the host; none of a local store.
    disk: Option<Arc<DiskCache>>,
    specs: Arc<SpecCache>,
    references: Arc<Mutex<References>>,
    told: Arc<Told>,
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
        let backend = open::open(url, options).await?;
        if backend.is_remote() {
            backend.reach().await?;
        }
        Ok(Self::on(backend))
    }

    fn on(backend: Backend) -> Self {
        Self {
            backend: Arc::new(backend),
            cache: Arc::default(),
            large: Arc::default(),
            disk: None,
            specs: Arc::default(),
            references: Arc::default(),
            told: Arc::default(),
        }
    }

    /// A store in which blobs of more bytes than this count as large.
    #[cfg(test)]
    pub(crate) async fn with_large(url: &str, large: u64) -> Self {
        Self::on(open::open(url, &[]).await.unwrap().with_large(large))
    }

    /// A store in memory that can be slowed down, and gives up an answer after a second and a half.
    #[cfg(test)]
    pub(crate) fn throttled() -> (Self, Arc<ThrottledStore<InMemory>>) {
        let objects = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
        let place = errors::Place::new("memory://".to_owned());
        let backend = Backend::new(objects.clone(), None, place)
            .with_answer(std::time::Duration::from_millis(1500));
        (Self::on(backend), objects)
    }

    /// The store's address, in full.
    pub fn url(&self) -> &str {
        self.backend.url()
    }

    /// Whether a server holds it.
    pub(crate) fn is_remote(&self) -> bool {
        self.backend.is_remote()
    }

    /// Whether the store answers, exists and takes writes; leaves nothing behind.
    pub async fn check(&self) -> Result<(), JobsError> {
        self.backend.reach().await?;
        self.backend.replace("check", bytes::Bytes::from_static(b"agrpo")).await?;
        self.backend.delete("check").await
    }

    /// The same store with a cache of a server's blobs in a folder, which all processes of a host may
    /// share: at most `limit` bytes, by default as much as the disk spares, up to 64 GiB. A folder that
    /// cannot be used is told in a warning; a local store needs none.
    #[must_use]
    pub fn with_cache(&self, folder: &Path, limit: Option<u64>) -> Self {
        if !self.backend.is_remote() || limit == Some(0) {
            return Self { disk: None, ..self.clone() };
        }
        let disk = DiskCache::open(folder, limit).map_err(|error| {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "no cache of blobs: the folder cannot be used");
        });
        Self { disk: disk.ok().map(Arc::new), ..self.clone() }
    }

    /// The same store, which waits so long for a server that is away, and says so; `stop` ends the wait. Without this
    /// a server is given fifteen seconds, and the caller decides.
    #[must_use]
    pub fn with_patience(&self, limit: Duration, stop: watch::Receiver<bool>) -> Self {
        let patience = trust::Patience { limit, stop };
        Self { backend: Arc::new(self.backend.with_patience(patience)), ..self.clone() }
    }

    /// The same store without what was read before: every blob is read from it and checked anew.
    #[must_use]
    pub fn fresh(&self) -> Self {
        self.with_scratch(self.large.scratch())
    }

    /// The same store with an empty cache, whose copies of large blobs of a server go into a folder.
    #[must_use]
    pub fn with_scratch(&self, folder: Option<PathBuf>) -> Self {
        let large = Arc::new(LargeBlobs::in_folder(folder));
        let (backend, references) = (Arc::clone(&self.backend), Arc::clone(&self.references));
        let (cache, specs, told) = (Arc::default(), Arc::default(), Arc::clone(&self.told));
        Self { backend, cache, large, disk: None, specs, references, told }
    }
}
