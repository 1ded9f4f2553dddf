//! The bytes of one file, whether or not they fit into memory.
//!
//! A shard of a large checkpoint is never read as a whole: the store hands out windows of it, and checks
//! them against its digest at every read. Nothing here opens a file; an implementation of [`Windows`] may.

use std::{collections::BTreeMap, fmt, io, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::digest::{ArtifactDigest, DigestStream};

/// Bytes that are read at a time where all of them are needed. Small beside a model's matrices: the C
/// library's allocator then gives windows back to windows, and no holes are left between matrices.
pub const WINDOW: u64 = 4 << 20;

/// A blob of more bytes than this is kept out of memory where its reader takes windows.
pub const LARGE: u64 = 64 << 20;

/// How the text begins that Git LFS leaves in place of a file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What is wrong with a file that begins with these bytes, where Git LFS left a pointer in its place.
pub fn lfs_pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(LFS_POINTER).then_some(
        "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file",
    )
}

/// A folder's files, by name.
pub type Files = BTreeMap<String, Content>;

/// Bytes that lie somewhere else, and never change.
pub trait Windows: fmt::Debug + Send + Sync {
    /// All of them, in bytes.
    fn size(&self) -> u64;

    /// Their digest, where it was computed from these very bytes.
    fn digest(&self) -> Option<ArtifactDigest>;

    /// Some of them. The range lies within the size. Where the digest is known, bytes that are not
    /// those it names are an error.
    fn window(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Whether a read found bytes that the digest does not name, and refused them.
    fn is_damaged(&self) -> bool {
        false
    }
}

/// The bytes of one file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// Somewhere else, and too large for memory.
    Elsewhere(Arc<dyn Windows>),
}

impl Content {
    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Elsewhere(windows) => windows.size(),
        }
    }

    /// The digest, where the store of the bytes checks it at every read.
    pub fn known_digest(&self) -> Option<ArtifactDigest> {
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

    /// The blob's name, if a read of it was refused because its bytes are others by now.
    pub fn damaged(&self) -> Option<ArtifactDigest> {
        match self {
            Self::Elsewhere(windows) if windows.is_damaged() => windows.digest(),
            Self::Memory(_) | Self::Elsewhere(_) => None,
        }
    }

    /// Some of the bytes, without a copy where they are in memory. Error where the range reaches beyond
    /// them or they cannot be read.
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

/// The same bytes. Those that cannot be read are not equal to any.
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
    fn what_lies_outside_is_an_error() {
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
