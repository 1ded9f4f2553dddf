//! The bytes of one file, whether or not they fit into memory.
//!
//! A shard of a large checkpoint is never read as a whole: the store hands out windows of it, and checks
//! them against its digest at every read. Nothing here opens a file; an implementation of [`Windows`] may.

use std::{collections::BTreeMap, fmt, io, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::digest::{ArtifactDigest, DigestStream};

/// Bytes of one read when a whole file is streamed. Much less than a model's matrix, so that the C library's allocator
/// reuses freed windows for windows and leaves no holes between matrices.
pub const WINDOW: u64 = 4 << 20;

/// Blobs of more bytes are not held in memory if their reader accepts windows.
pub const LARGE: u64 = 64 << 20;

/// Describes a file that begins with these bytes, if it is a Git LFS pointer, the text that stands in for a file.
pub fn lfs_pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(b"version https://git-lfs.github.com/spec/").then_some(
        "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file",
    )
}

/// A folder's files, by name.
pub type Files = BTreeMap<String, Content>;

/// Immutable bytes outside of memory.
pub trait Windows: fmt::Debug + Send + Sync {
    /// The length in bytes.
    fn size(&self) -> u64;

    /// The digest, if it was computed from exactly these bytes.
    fn digest(&self) -> Option<ArtifactDigest>;

    /// The bytes of a range, which lies within the size. If the digest is known, bytes that do not match it are an
    /// error.
    fn window(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Whether a read was refused because its bytes do not match the digest.
    fn is_damaged(&self) -> bool {
        false
    }
}

/// The bytes of one file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// Outside of memory, because they are too large.
    Elsewhere(Arc<dyn Windows>),
}

impl Content {
    /// The length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Elsewhere(windows) => windows.size(),
        }
    }

    /// The digest, if the store checks it at every read.
    fn known_digest(&self) -> Option<ArtifactDigest> {
        match self {
            Self::Memory(_) => None,
            Self::Elsewhere(windows) => windows.digest(),
        }
    }

    /// The digest: the known one, or computed from all bytes.
    pub fn digest(&self) -> io::Result<ArtifactDigest> {
        if let Some(digest) = self.known_digest() {
            return Ok(digest);
        }
        let mut stream = DigestStream::default();
        for range in self.ranges(WINDOW) {
            stream.update(&self.window(range)?);
        }
        Ok(stream.finish())
    }

    /// The blob's name, if a read was refused because its bytes have changed.
    pub fn damaged(&self) -> Option<ArtifactDigest> {
        match self {
            Self::Elsewhere(windows) if windows.is_damaged() => windows.digest(),
            Self::Memory(_) | Self::Elsewhere(_) => None,
        }
    }

    /// The bytes of a range, without a copy if they are in memory. Error if the range exceeds the size or the bytes
    /// cannot be read.
    pub fn window(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.size() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("bytes {} to {} of {}", range.start, range.end, self.size()),
            ));
        }
        match self {
            Self::Memory(bytes) => {
                let at = |n| usize::try_from(n).expect("lies within bytes in memory");
                Ok(bytes.slice(at(range.start)..at(range.end)))
            }
            Self::Elsewhere(windows) => windows.window(range),
        }
    }

    /// All bytes of a small file. Error where there are more than `most`.
    pub fn bytes(&self, most: u64) -> io::Result<Bytes> {
        let size = self.size();
        if size > most {
            let reason = format!("{size} bytes, expected at most {most}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        self.window(0..size)
    }

    /// Ranges of at most `step` bytes that cover everything, in order.
    pub fn ranges(&self, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let size = self.size();
        let starts = (0..size.div_ceil(step)).map(move |n| n * step);
        starts.map(move |start| start..size.min(start + step))
    }
}

/// Compares the bytes; unreadable bytes equal nothing.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        if self.size() != other.size() {
            return false;
        }
        if let (Some(ours), Some(theirs)) = (self.known_digest(), other.known_digest()) {
            return ours == theirs;
        }
        self.ranges(WINDOW).all(|range| {
            matches!((self.window(range.clone()), other.window(range)), (Ok(a), Ok(b)) if a == b)
        })
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Memory(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that count as lying elsewhere.
    #[derive(Debug)]
    struct Far(Bytes, Option<ArtifactDigest>);

    impl Windows for Far {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn digest(&self) -> Option<ArtifactDigest> {
            self.1
        }

        fn window(&self, range: Range<u64>) -> io::Result<Bytes> {
            Content::from(self.0.clone()).window(range)
        }
    }

    #[test]
    fn bytes_are_the_same_wherever_they_lie() {
        let bytes: Bytes = (0..40_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let near = Content::from(bytes.clone());
        let far = Content::Elsewhere(Arc::new(Far(bytes.clone(), None)));
        assert_eq!(near, far);
        assert_eq!(far.digest().unwrap(), ArtifactDigest::of(&bytes));
        assert_eq!(far.window(7..9).unwrap(), bytes[7..9]);
        let covered: Vec<_> = far.ranges(WINDOW).collect();
        assert_eq!(covered.last().unwrap().end, far.size());
        assert!(covered.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_ne!(near, Content::from(bytes.slice(1..)));
    }

    #[test]
    fn a_known_digest_is_not_computed_again() {
        let digest = ArtifactDigest::of(b"known");
        let far = Content::Elsewhere(Arc::new(Far(Bytes::from_static(b"x"), Some(digest))));
        assert_eq!(far.digest().unwrap(), digest);
    }

    #[test]
    fn a_range_outside_the_bytes_is_an_error() {
        let content = Content::from(&b"abc"[..]);
        #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
        for range in [0..4, 4..5, 2..1, u64::MAX..u64::MAX] {
            assert!(content.window(range).is_err());
        }
        assert!(content.bytes(2).unwrap_err().to_string().contains("3 bytes"));
        assert_eq!(Content::from(vec![]).bytes(0).unwrap(), Bytes::new());
        assert_eq!(Content::from(vec![]).ranges(WINDOW).count(), 0);
    }
}
