//! The store: everything that was ever computed, by name. The truth that queue and workers serve.
//!
//! ```text
//! cas/<sha256>                             blobs, checked on every read
//! stages/<stage digest>                    manifests, written last and created once
//! runs/<run id>/run.json                   the run's configuration
//! runs/<run id>/stages/<key>.<digest>      an index for resume and status; losing it costs time only
//! runs/<run id>/failures/<stage digest>    why a stage failed for good
//! ```
//!
//! `store/` is the only place that names object_store. Nothing here computes or decides what is next.

mod backend;
mod blobs;
mod cache;
mod errors;
mod files;
mod folders;
mod import;
mod large;
mod manifests;
mod names;
mod open;
mod runs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use backend::Backend;
use cache::BlobCache;
use large::LargeBlobs;

pub(crate) use folders::records;
pub use import::Imported;
pub(crate) use open::read_s3;
pub use runs::Failure;

use crate::error::JobsError;

/// A handle on a store; clones share connections and the cache of verified blobs.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
    cache: Arc<BlobCache>,
    large: Arc<LargeBlobs>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url()).finish()
    }
}

impl Store {
    /// Opens `file:///folder` or a plain path (created where missing), `s3://bucket[/prefix]` or
    /// `memory://`. `options` are AWS_* names and values; their secrets are never shown.
    pub async fn open(url: &str, options: &[(String, String)]) -> Result<Self, JobsError> {
        let backend = open::open(url, options).await?;
        if backend.is_remote() {
            backend.reach().await?;
        }
        Ok(Self { backend: Arc::new(backend), cache: Arc::default(), large: Arc::default() })
    }

    /// The store's address, in full.
    pub fn url(&self) -> &str {
        self.backend.url()
    }

    /// Whether the store answers, exists and takes writes; leaves nothing behind.
    pub async fn check(&self) -> Result<(), JobsError> {
        self.backend.reach().await?;
        self.backend.replace("check", bytes::Bytes::from_static(b"agrpo")).await?;
        self.backend.delete("check").await
    }

    /// The same store with an empty cache: every blob is read and checked anew.
    #[must_use]
    pub fn fresh(&self) -> Self {
        self.with_scratch(self.large.scratch())
    }

    /// The same store with an empty cache, whose copies of large blobs of a server go into a folder.
    #[must_use]
    pub fn with_scratch(&self, folder: Option<PathBuf>) -> Self {
        let large = Arc::new(LargeBlobs::in_folder(folder));
        Self { backend: Arc::clone(&self.backend), cache: Arc::default(), large }
    }
}
