//! Specs that this process wrote or read, so that it need not ask the store for them.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agrpo_spec::{StageDigest, StageSpec};
use lru::LruCache;

/// Specs kept in memory; one is about a kilobyte.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Specs that this process wrote or read, and so need not ask for.
pub(crate) struct SpecCache(Mutex<LruCache<StageDigest, StageSpec>>);

impl Default for SpecCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl fmt::Debug for SpecCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpecCache")
    }
}

impl SpecCache {
    pub(crate) fn lock(&self) -> MutexGuard<'_, LruCache<StageDigest, StageSpec>> {
        // Every change leaves the cache whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
