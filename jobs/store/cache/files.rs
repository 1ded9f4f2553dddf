//! Large blobs that this process has checked: files on the disk, and copies of a server's objects.
//!
//! A file is hashed when a process first looks at it, and again when its size or time of change is another one; what a
//! read found damaged is not trusted again until all of it was hashed once more. Copies lie in files without a name,
//! which the system removes with the process however that ends; those used longest ago go first. Asks no server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_spec::ArtifactDigest;
use lru::LruCache;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::checked::{Blocks, OnDisk};
use crate::regular;

/// Bytes of a server's objects kept as files at most, the newest one aside.
const KEPT: u64 = 64 << 30;
/// Bytes of memory for what is known of blobs' blocks at most: enough for 600 GB of them.
const TABLES: u64 = 64 << 20;
/// Blobs hashed or copied at a time.
const AT_ONCE: usize = 2;
/// What tells a file from the same file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// What is known of one large blob.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// The file was checked when it looked so.
    Checked(Stamp, Arc<Blocks>),
    /// A checked copy of a server's object.
    Copied(Arc<OnDisk>, Arc<Blocks>),
}

impl Known {
    fn blocks(&self) -> &Blocks {
        match self {
            Self::Checked(_, blocks) | Self::Copied(_, blocks) => blocks,
        }
    }

    /// Bytes of disk that it holds.
    fn copied(&self) -> u64 {
        match self {
            Self::Checked(..) => 0,
            Self::Copied(_, blocks) => blocks.size(),
        }
    }
}

/// Large blobs that this process has checked.
pub(crate) struct StreamedBlobs {
    known: Mutex<LruCache<ArtifactDigest, Known>>,
    /// Held while a blob is checked or copied: the same bytes are not hashed twice at a time.
    turns: Mutex<BTreeMap<ArtifactDigest, Arc<tokio::sync::Mutex<()>>>>,
    /// How many blobs are worked on at a time: it bounds what is in memory.
    places: Semaphore,
    scratch: Option<PathBuf>,
}

impl Default for StreamedBlobs {
    fn default() -> Self {
        Self::in_folder(None)
    }
}

impl StreamedBlobs {
    /// Copies go into `scratch`; by default where temporary files may be large.
    pub(crate) fn in_folder(scratch: Option<PathBuf>) -> Self {
        let known = Mutex::new(LruCache::unbounded());
        Self { known, turns: Mutex::default(), places: Semaphore::new(AT_ONCE), scratch }
    }

    pub(crate) fn turn(&self, digest: ArtifactDigest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are neither held nor waited for.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest).or_default())
    }

    /// Held while a blob is hashed or copied, and never while another process is waited for.
    pub(crate) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// Where copies go, if that was set.
    pub(crate) fn scratch(&self) -> Option<PathBuf> {
        self.scratch.clone()
    }

    /// What is known of a blob, unless a read found it damaged since.
    pub(crate) fn get(&self, digest: ArtifactDigest) -> Option<Known> {
        // Every change leaves the table whole, so a panic elsewhere does not spoil it.
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&digest)?.blocks().is_invalid() {
            all.pop(&digest);
        }
        all.get(&digest).cloned()
    }

    pub(crate) fn insert(&self, digest: ArtifactDigest, known: Known) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.put(digest, known);
        let mut bytes: u64 = all.iter().map(|(_, known)| known.copied()).sum();
        let mut tables: u64 = all.iter().map(|(_, known)| known.blocks().taken()).sum();
        while (bytes > KEPT || tables > TABLES) && all.len() > 1 {
            let Some((_, oldest)) = all.pop_lru() else { break };
            bytes -= oldest.copied();
            tables -= oldest.blocks().taken();
        }
    }

    /// A file without a name, gone with its last handle.
    pub(crate) fn nameless(&self) -> io::Result<File> {
        // /tmp may lie in memory; /var/tmp is there for what is large.
        let large = Path::new("/var/tmp");
        match &self.scratch {
            Some(folder) => tempfile::tempfile_in(folder),
            None if large.is_dir() => {
                tempfile::tempfile_in(large).or_else(|_| tempfile::tempfile())
            }
            None => tempfile::tempfile(),
        }
    }

    /// The file at `path`, hashed unless that was done. `Ok(Err(_))`: its size and the digest that it has
    /// instead.
    pub(crate) fn check(&self, path: &Path, digest: ArtifactDigest) -> io::Result<Checked> {
        let disk = OnDisk::open(path)?;
        let stamp = Stamp::of(disk.file())?;
        match self.get(digest) {
            Some(Known::Checked(known, blocks)) if known == stamp => {
                Ok(Ok(OnDisk::checked(disk.into_file(), blocks)))
            }
            _ => self.hash(disk, digest),
        }
    }

    /// The same for who has to know what the file holds now: it is always hashed.
    pub(crate) fn check_anew(&self, path: &Path, digest: ArtifactDigest) -> io::Result<Checked> {
        self.hash(OnDisk::open(path)?, digest)
    }

    fn hash(&self, disk: OnDisk, digest: ArtifactDigest) -> io::Result<Checked> {
        let stamp = Stamp::of(disk.file())?;
        let blocks = Arc::new(disk.hash()?);
        if blocks.digest() != digest {
            return Ok(Err((blocks.size(), blocks.digest())));
        }
        // Changed while it was read: not known, but what was read is what was asked for.
        if Stamp::of(disk.file())? == stamp {
            self.insert(digest, Known::Checked(stamp, Arc::clone(&blocks)));
        }
        Ok(Ok(OnDisk::checked(disk.into_file(), blocks)))
    }

    /// Notes what the file at `path` was just written from.
    pub(crate) fn note(&self, path: &Path, blocks: Arc<Blocks>) -> io::Result<()> {
        let stamp = Stamp::of(&regular::open(path)?)?;
        self.insert(blocks.digest(), Known::Checked(stamp, blocks));
        Ok(())
    }

    /// Makes the file at `path` as young as if it were written now. What is known of it stays known.
    pub(crate) fn renew(&self, path: &Path, digest: ArtifactDigest) -> io::Result<()> {
        let file = regular::open(path)?;
        let stamp = Stamp::of(&file)?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let same = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        rustix::fs::futimens(&file, &Timestamps { last_access: same, last_modification: now })?;
        match self.get(digest) {
            Some(Known::Checked(known, blocks)) if known == stamp => {
                self.insert(digest, Known::Checked(Stamp::of(&file)?, blocks));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A file to read from, or the size and the digest that it has instead of the one it should.
pub(crate) type Checked = Result<OnDisk, (u64, ArtifactDigest)>;

/// A file that came from a server, and what it holds.
pub(crate) struct Fetched {
    pub(crate) file: File,
    pub(crate) blocks: Arc<Blocks>,
}

#[cfg(test)]
mod tests {
    use agrpo_spec::OutputRecord;

    use crate::Store;
    use crate::testing::with_large;

    #[tokio::test]
    async fn a_blob_without_readers_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        let store = with_large(&store, 1 << 20);
        for n in 0..5u8 {
            let OutputRecord { digest, size } =
                store.put_blob(vec![n; 2 << 20].into()).await.unwrap();
            store.content(digest, size).await.unwrap();
        }
        assert_eq!(store.large.turns.lock().unwrap().len(), 1, "the last one alone");
        assert_eq!(store.large.known.lock().unwrap().len(), 5);
    }
}
