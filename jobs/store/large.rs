//! Blobs too large for memory: checked as they stream past, then handed out in windows of a file.
//!
//! A local store's file is hashed when a process first looks at it, and again when its size or time of change
//! is another one; in between each read is checked by itself ([`OnDisk`]). An object of a server is first
//! copied into a file without a name, which the system removes with the process however that ends; the copies
//! used longest ago go when they take too much room. What a pass finds wrong is read again, and is corrupt where
//! two passes find the same digest. What a read found damaged is not trusted again until all of it was hashed
//! once more. Windows are read, not mapped: a file that somebody cuts short is then an error and not a signal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;
use lru::LruCache;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::Store;
use super::blobs::blob_name;
use super::checked::{Blocks, Hashing, OnDisk};
use crate::error::{JobsError, MADE_AGAIN};
use crate::metrics::{self, Tier};
use crate::regular;

/// Bytes of a server's objects kept as files at most, the newest one aside.
const KEPT: u64 = 64 << 30;
/// Bytes of memory for what is known of blobs' blocks at most: enough for 600 GB of them.
const TABLES: u64 = 64 << 20;
/// Blobs hashed or copied at a time.
const AT_ONCE: usize = 2;
/// Pieces on their way from a server to a file.
const UNDER_WAY: usize = 4;

/// What tells a file from the same file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
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
enum Known {
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
pub(super) struct LargeBlobs {
    known: Mutex<LruCache<ArtifactDigest, Known>>,
    /// Whoever checks or copies a blob holds its turn: the same bytes are not hashed twice at a time.
    turns: Mutex<BTreeMap<ArtifactDigest, Arc<tokio::sync::Mutex<()>>>>,
    /// How many blobs are worked on at a time: it bounds what is in memory.
    places: Semaphore,
    scratch: Option<PathBuf>,
}

impl Default for LargeBlobs {
    fn default() -> Self {
        Self::in_folder(None)
    }
}

impl LargeBlobs {
    /// Copies go into `scratch`; by default where temporary files may be large.
    pub(super) fn in_folder(scratch: Option<PathBuf>) -> Self {
        let known = Mutex::new(LruCache::unbounded());
        Self { known, turns: Mutex::default(), places: Semaphore::new(AT_ONCE), scratch }
    }

    fn turn(&self, digest: ArtifactDigest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds or waits for.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest).or_default())
    }

    /// Held while a blob is hashed or copied, and never while another process is waited for.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// Where copies go, if somebody said so.
    pub(super) fn scratch(&self) -> Option<PathBuf> {
        self.scratch.clone()
    }

    /// What is known of a blob, unless a read found it damaged since.
    fn get(&self, digest: ArtifactDigest) -> Option<Known> {
        // Every change leaves the table whole, so a panic elsewhere does not spoil it.
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&digest)?.blocks().is_doubted() {
            all.pop(&digest);
        }
        all.get(&digest).cloned()
    }

    fn insert(&self, digest: ArtifactDigest, known: Known) {
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
    fn nameless(&self) -> io::Result<File> {
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
    pub(super) fn check(&self, path: &Path, digest: ArtifactDigest) -> io::Result<Checked> {
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
    pub(super) fn check_anew(&self, path: &Path, digest: ArtifactDigest) -> io::Result<Checked> {
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
    pub(super) fn note(&self, path: &Path, blocks: Arc<Blocks>) -> io::Result<()> {
        let stamp = Stamp::of(&regular::open(path)?)?;
        self.insert(blocks.digest(), Known::Checked(stamp, blocks));
        Ok(())
    }

    /// Makes the file at `path` as young as if it were written now. What is known of it stays known.
    pub(super) fn renew(&self, path: &Path, digest: ArtifactDigest) -> io::Result<()> {
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
pub(super) type Checked = Result<OnDisk, (u64, ArtifactDigest)>;

/// A file that came from a server, and what it holds.
pub(super) struct Fetched {
    pub(super) file: File,
    pub(super) blocks: Arc<Blocks>,
}

/// Writes pieces into a file from its start as they come.
fn collect(mut file: File, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Fetched> {
    let mut hashing = Hashing::default();
    file.rewind()?;
    while let Some(piece) = pieces.blocking_recv() {
        hashing.update(&piece);
        file.write_all(&piece)?;
    }
    Ok(Fetched { file, blocks: Arc::new(hashing.finish()) })
}

impl Store {
    /// A blob of `size` bytes, in memory where it is small. Data error naming the blob if it is missing
    /// or damaged.
    pub async fn content(&self, digest: ArtifactDigest, size: u64) -> Result<Content, JobsError> {
        let content = if size <= self.backend.large() || self.backend.is_memory() {
            self.cached_blob(digest).await?.into()
        } else if let Some(path) = self.backend.path(&blob_name(digest)) {
            self.large_file(digest, path).await?
        } else {
            self.large_object(digest, size).await?
        };
        let found = content.size();
        if found != size {
            return Err(JobsError::Data(format!(
                "{} in {} has {found} bytes, expected {size}: what names it is corrupt",
                blob_name(digest),
                self.url()
            )));
        }
        Ok(content)
    }

    /// A blob of whatever size; errors as for [`Store::content`].
    pub async fn open_blob(&self, digest: ArtifactDigest) -> Result<Content, JobsError> {
        if let Some(bytes) = self.cache.get(digest) {
            metrics::cache_asked(Tier::Memory, true);
            return Ok(bytes.into());
        }
        match self.backend.size(&blob_name(digest)).await? {
            Some(size) => self.content(digest, size).await,
            None => Err(self.missing(digest)),
        }
    }

    /// The length of a blob that was read and checked, however large it is.
    pub(crate) async fn verified_size(&self, digest: ArtifactDigest) -> Result<u64, JobsError> {
        match self.backend.size(&blob_name(digest)).await? {
            Some(size) if size > self.backend.large() && !self.backend.is_memory() => {
                Ok(self.content(digest, size).await?.size())
            }
            _ => Ok(self.get_blob(digest).await?.len() as u64),
        }
    }

    async fn large_file(
        &self,
        digest: ArtifactDigest,
        path: PathBuf,
    ) -> Result<Content, JobsError> {
        let turn = self.large.turn(digest);
        let _turn = turn.lock().await;
        let _place = self.large.place().await;
        let (name, mut before) = (blob_name(digest), vec![]);
        loop {
            let (large, path) = (Arc::clone(&self.large), path.clone());
            match blocking(move || large.check(&path, digest)).await? {
                Ok(Ok(disk)) => {
                    if !before.is_empty() {
                        self.tell_bad_read(&name);
                    }
                    return Ok(disk.content());
                }
                Ok(Err((size, found))) => {
                    if self.is_certain(&name, &mut before, found)? {
                        return Err(self.corrupt(digest, size, found));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(self.missing(digest));
                }
                Err(error) => return Err(self.backend.local(&format!("read {name}"), error)),
            }
        }
    }

    async fn large_object(&self, digest: ArtifactDigest, size: u64) -> Result<Content, JobsError> {
        let turn = self.large.turn(digest);
        let _turn = turn.lock().await;
        if let Some(Known::Copied(copy, _)) = self.large.get(digest) {
            return Ok(Content::Elsewhere(copy));
        }
        if let Some(content) = self.host_object(digest, size).await? {
            return Ok(content);
        }
        let large = Arc::clone(&self.large);
        let scratch = |error| self.scratch_failed(digest, size, &error);
        let file = blocking(move || large.nameless()).await?.map_err(scratch)?;
        let Fetched { file, blocks } = self.download(digest, size, file).await?.map_err(scratch)?;
        let copy = Arc::new(OnDisk::checked(file, Arc::clone(&blocks)));
        self.large.insert(digest, Known::Copied(Arc::clone(&copy), blocks));
        Ok(Content::Elsewhere(copy))
    }

    /// A server's object in a file, checked, and fetched again where it is not what its name says. `Ok(Err(_))`:
    /// what the file system says.
    pub(super) async fn download(
        &self,
        digest: ArtifactDigest,
        size: u64,
        file: File,
    ) -> Result<io::Result<Fetched>, JobsError> {
        let _place = self.large.place().await;
        let name = blob_name(digest);
        match self.backend.size(&name).await? {
            None => return Err(self.missing(digest)),
            Some(found) if found != size => return Err(self.cut(digest, found, size)),
            Some(_) => {}
        }
        let (mut file, mut before) = (file, vec![]);
        loop {
            let (sender, pieces) = mpsc::channel(UNDER_WAY);
            let (sent, collected) = futures::join!(
                self.backend.stream(&name, size, sender),
                blocking(move || collect(file, pieces)),
            );
            // A full disk ends the stream too: it is the cause, so it is told.
            let fetched = match collected? {
                Ok(collected) => collected,
                Err(error) => return Ok(Err(error)),
            };
            sent?;
            metrics::bytes_read(size);
            let found = fetched.blocks.digest();
            if found == digest {
                if !before.is_empty() {
                    self.tell_bad_read(&name);
                }
                return Ok(Ok(fetched));
            }
            if self.is_certain(&name, &mut before, found)? {
                return Err(self.corrupt(digest, size, found));
            }
            file = fetched.file;
        }
    }

    fn cut(&self, digest: ArtifactDigest, found: u64, size: u64) -> JobsError {
        let (name, url) = (blob_name(digest), self.url());
        let message = format!(
            "{name} in {url} is corrupt: it has {found} bytes, expected {size}; {MADE_AGAIN}"
        );
        JobsError::Lost { digest, message }
    }

    fn scratch_failed(&self, digest: ArtifactDigest, size: u64, error: &io::Error) -> JobsError {
        JobsError::Unavailable(format!(
            "{}: cannot keep a copy of {} ({size} bytes) in the folder for temporary files: {error}; \
             free some room there",
            self.url(),
            blob_name(digest)
        ))
    }
}

/// Runs work on files where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| JobsError::Internal(format!("work on a file stopped: {error}")))
}

#[cfg(test)]
mod tests;
