//! The handle on a store: its objects, its blobs and its records.
//!
//! Opens and configures; what is read and written is in `objects/`, `cas/` and `records/`.

use std::{fmt, path::Path, sync::Arc};

use crate::objects::{Limits, ObjectStore, Objects, open, over};
use crate::{Result, cas::Cas, records::Records};

/// A handle on a store; clones share connections and the cache of verified blobs.
#[derive(Clone)]
pub struct Store {
    /// Bytes by name.
    pub objects: Arc<Objects>,
    /// Blobs by content, checked and cached.
    pub cas: Cas,
    /// Typed records of stages and runs.
    pub records: Records,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url()).finish()
    }
}

impl Store {
    /// Opens `file:///folder` or a plain path (created where missing), `s3://bucket[/prefix]` or `memory://`.
    /// `options` are settings by name (AWS_* and AGRPO_S3_CHECKSUM); their secrets are never shown.
    pub async fn open(url: &str, options: &[(String, String)]) -> Result<Self> {
        let objects = open(url, options).await?;
        if objects.is_remote() {
            objects.ping().await?;
        }
        Ok(Self::on(objects))
    }

    /// A store in an object store that the caller made, which lives as long as the process.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self::on(over(objects))
    }

    pub(crate) fn on(objects: Objects) -> Self {
        let objects = Arc::new(objects);
        let (cas, records) = (Cas::new(Arc::clone(&objects)), Records::new(Arc::clone(&objects)));
        Self { objects, cas, records }
    }

    /// The store's address, in full.
    pub fn url(&self) -> &str {
        self.objects.url()
    }

    /// The same store with other limits for time and memory.
    #[must_use]
    pub fn with_limits(&self, change: impl FnOnce(&mut Limits)) -> Self {
        let mut store = self.clone();
        change(&mut Arc::make_mut(&mut store.objects).limits);
        store.cas.objects = Arc::clone(&store.objects);
        store.records.objects = Arc::clone(&store.objects);
        store
    }

    /// The same store with a cache of a server's blobs in a folder that all processes of a host may share, of at most
    /// `limit` bytes, by default a share of the free disk, up to 64 GiB. A folder that cannot be used is a warning.
    #[must_use]
    pub fn with_cache(&self, folder: &Path, limit: Option<u64>) -> Self {
        Self { cas: self.cas.with_cache(folder, limit), ..self.clone() }
    }

    /// The same store with empty caches: every blob is read from it and checked again.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self { cas: self.cas.fresh(), records: self.records.fresh(), ..self.clone() }
    }
}
