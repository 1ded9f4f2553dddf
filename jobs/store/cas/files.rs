//! Large blobs that this process has checked: files on the disk, and copies of a server's objects.
//!
//! A file is hashed when a process first opens it, when it is another file or has another size, and after a read found
//! it damaged. Its times say nothing: a process that hands a blob on renews them, and every window is checked when it is read.
//! Copies are unnamed files, which the system deletes with the process; the least recently used are
//! dropped first.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::MetadataExt};

use agrpo_spec::ArtifactDigest;
use lru::LruCache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::checked::{Blocks, OnDisk};
use crate::{regular, span::locked};

/// Bytes of copies of a server's objects at most, apart from the newest one.
const COPIES: u64 = 64 << 30;
/// Bytes of memory for the hashes of blobs' blocks at most: enough for 600 GB of blobs.
const TABLES: u64 = 64 << 20;
/// Blobs hashed or copied at a time.
const AT_ONCE: usize = 2;

/// Differs where a file was replaced or cut: device, inode and size.
type Stamp = (u64, u64, u64);

fn stamp(file: &File) -> io::Result<Stamp> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino(), meta.len()))
}

/// What is known of one large blob.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// The file was checked when it had this stamp.
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
            Self::Copied(_, blocks) => blocks.size,
        }
    }
}

#[derive(Debug)]
pub(super) struct StreamedBlobs {
    known: Mutex<LruCache<ArtifactDigest, Known>>,
    /// One lock for each blob, held while it is checked or copied: no two tasks hash the same bytes.
    turns: Mutex<BTreeMap<ArtifactDigest, Arc<tokio::sync::Mutex<()>>>>,
    /// Bounds how many blobs are hashed or copied at a time, and so the memory for it.
    places: Semaphore,
    /// Where copies of a server's objects go, if that was set.
    pub(super) scratch: Option<PathBuf>,
}

impl StreamedBlobs {
    /// Copies go into `scratch`; by default where temporary files may be large.
    pub(super) fn in_folder(scratch: Option<PathBuf>) -> Self {
        let known = Mutex::new(LruCache::unbounded());
        Self { known, turns: Mutex::default(), places: Semaphore::new(AT_ONCE), scratch }
    }

    pub(super) fn turn(&self, digest: ArtifactDigest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = locked(&self.turns);
        // Drops locks that are neither held nor waited for.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest).or_default())
    }

    /// A permit to hash or copy a blob. Never held while waiting for another process.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// What is known of a blob, unless a read found it damaged since.
    pub(super) fn get(&self, digest: ArtifactDigest) -> Option<Known> {
        let mut all = locked(&self.known);
        if all.get(&digest)?.blocks().is_invalid() {
            all.pop(&digest);
        }
        all.get(&digest).cloned()
    }

    pub(super) fn insert(&self, digest: ArtifactDigest, known: Known) {
        let mut all = locked(&self.known);
        all.put(digest, known);
        let mut bytes: u64 = all.iter().map(|(_, known)| known.copied()).sum();
        let mut tables: u64 = all.iter().map(|(_, known)| known.blocks().taken()).sum();
        while (bytes > COPIES || tables > TABLES) && all.len() > 1 {
            let Some((_, oldest)) = all.pop_lru() else { break };
            bytes -= oldest.copied();
            tables -= oldest.blocks().taken();
        }
    }

    /// An unnamed file, deleted with its last handle.
    pub(super) fn nameless(&self) -> io::Result<File> {
        match &self.scratch {
            Some(folder) => tempfile::tempfile_in(folder),
            // /tmp may be in memory; /var/tmp is meant for large files.
            None => tempfile::tempfile_in("/var/tmp").or_else(|_| tempfile::tempfile()),
        }
    }

    /// The file at `path`, hashed unless that was done. `Ok(Err(_))`: its size and the digest that it has instead.
    pub(super) fn check(&self, path: &Path, digest: ArtifactDigest) -> io::Result<Checked> {
        let disk = OnDisk::open(path)?;
        let before = stamp(&disk.file)?;
        match self.get(digest) {
            Some(Known::Checked(known, blocks)) if known == before => {
                Ok(Ok(OnDisk::checked(disk.file, blocks)))
            }
            _ => self.hash(disk, digest),
        }
    }

    /// The same, but always hashes the file.
    pub(super) fn hash(&self, disk: OnDisk, digest: ArtifactDigest) -> io::Result<Checked> {
        let before = stamp(&disk.file)?;
        let blocks = Arc::new(disk.hash()?);
        if blocks.digest != digest {
            return Ok(Err((blocks.size, blocks.digest)));
        }
        // A file that changed while it was read is not remembered; the bytes that were read are right.
        if stamp(&disk.file)? == before {
            self.insert(digest, Known::Checked(before, Arc::clone(&blocks)));
        }
        Ok(Ok(OnDisk::checked(disk.file, blocks)))
    }

    /// Remembers the blocks of the file at `path`, which was just written.
    pub(super) fn note(&self, path: &Path, blocks: Arc<Blocks>) -> io::Result<()> {
        let now = stamp(&regular::open(path)?)?;
        self.insert(blocks.digest, Known::Checked(now, blocks));
        Ok(())
    }
}

/// A file to read from, or the size and the digest of a file that has the wrong one.
pub(super) type Checked = Result<OnDisk, (u64, ArtifactDigest)>;

/// A file that was fetched from a server, and its blocks.
pub(super) type Fetched = (OnDisk, Arc<Blocks>);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::UNIX_EPOCH;

    use agrpo_spec::OutputRecord;

    use super::*;
    use crate::Store;
    use crate::testing::with_large;

    #[tokio::test]
    async fn a_blob_without_readers_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        let store = with_large(&store, 1 << 20);
        for n in 0..5u8 {
            let OutputRecord { digest, size } =
                store.cas.put(vec![n; 2 << 20].into()).await.unwrap();
            store.cas.content(digest, size).await.unwrap();
        }
        assert_eq!(store.cas.streamed.turns.lock().unwrap().len(), 1, "the last one alone");
        assert_eq!(store.cas.streamed.known.lock().unwrap().len(), 5);
    }

    /// Every update renews the date of the base that it hands on, which other processes have checked.
    #[tokio::test]
    async fn a_file_whose_date_another_process_renewed_is_not_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        let store = with_large(&store, 1 << 20);
        let OutputRecord { digest, size } = store.cas.put(vec![5; 3 << 20].into()).await.unwrap();
        let path = folder.path().join("cas").join(digest.to_string());
        let file = File::options().read(true).write(true).open(path).unwrap();
        store.cas.content(digest, size).await.unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        assert!(store.fresh().cas.claim(digest).await.unwrap());
        assert!(file.metadata().unwrap().modified().unwrap() > UNIX_EPOCH);
        // Were the file hashed now, it would be found damaged.
        file.write_all_at(&[6], 2 << 20).unwrap();
        let content = store.cas.content(digest, size).await.unwrap();
        assert_eq!(content.window(0..9).unwrap(), [5; 9][..]);
        assert!(content.window(2 << 20..size).is_err(), "what is read is checked");
    }
}
