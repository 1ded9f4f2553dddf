//! The cache of verified blobs in memory: a policy is written by one stage and read by the next ones.
//!
//! Bounded in bytes; the least recently used blob is dropped first. Does not say what the store holds now.

use std::sync::Mutex;

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;
use lru::LruCache;

use crate::span::locked;

const CAPACITY: usize = 256 << 20;
/// Bytes that a blob takes besides its content: an entry in the list, one in the index, and an allocation.
const PLACE: usize = 256;
/// A smaller blob is copied: one that came over a network is a slice of a buffer, and would hold all of it.
const SMALL: usize = 64 << 10;

fn taken(bytes: &Bytes) -> usize {
    bytes.len() + PLACE
}

#[derive(Debug)]
struct Blobs {
    by_digest: LruCache<ArtifactDigest, Bytes>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct BlobCache(Mutex<Blobs>);

impl Default for BlobCache {
    fn default() -> Self {
        Self(Mutex::new(Blobs { by_digest: LruCache::unbounded(), bytes: 0 }))
    }
}

impl BlobCache {
    pub(super) fn get(&self, digest: ArtifactDigest) -> Option<Bytes> {
        locked(&self.0).by_digest.get(&digest).cloned()
    }

    /// Caches bytes whose digest was computed. A blob of more than half the space is not cached.
    pub(super) fn insert(&self, digest: ArtifactDigest, bytes: Bytes) {
        if bytes.len() > CAPACITY / 2 {
            return;
        }
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        let mut blobs = locked(&self.0);
        blobs.bytes += taken(&bytes);
        if let Some(previous) = blobs.by_digest.put(digest, bytes) {
            blobs.bytes -= taken(&previous);
        }
        while blobs.bytes > CAPACITY {
            let Some((_, oldest)) = blobs.by_digest.pop_lru() else { break };
            blobs.bytes -= taken(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = BlobCache::default();
        let large = Bytes::from(vec![0; CAPACITY / 2 - PLACE]);
        let name = |i: u8| ArtifactDigest::of(&[i]);
        for i in 0..3 {
            cache.insert(name(i), large.clone());
            cache.insert(name(i), large.clone());
            assert!(cache.get(name(0)).is_some() || i == 2);
        }
        assert!(locked(&cache.0).bytes <= CAPACITY);
        assert!(!locked(&cache.0).by_digest.contains(&name(1)), "the one used longest ago went");
        assert!(locked(&cache.0).by_digest.contains(&name(2)));
        cache.insert(name(9), Bytes::from(vec![0; CAPACITY / 2 + 1]));
        assert!(!locked(&cache.0).by_digest.contains(&name(9)));
    }

    #[test]
    fn small_blobs_take_their_own_bytes_and_are_counted_with_their_places() {
        let cache = BlobCache::default();
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let digest = ArtifactDigest::of(b"small");
        cache.insert(digest, buffer.slice(10..20));
        let cached = cache.get(digest).unwrap();
        assert_eq!(cached, buffer.slice(10..20));
        assert!(!buffer.as_ptr_range().contains(&cached.as_ptr()), "the buffer can go");
        assert_eq!(locked(&cache.0).bytes, 10 + PLACE);
    }
}
