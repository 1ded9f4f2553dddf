//! Blobs too large for memory: checked as they stream past, then handed out in windows of a file.
//!
//! A local store's file is hashed once; while its size and time of change stay the same it counts as
//! checked. An object of a server is first copied into a file without a name, which the system removes
//! with the process however that ends; the copies used longest ago go when they take too much room.
//! Windows are read, not mapped: a file that somebody cuts short is then an error and not a signal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_spec::{ArtifactDigest, Content, DigestStream, Windows};
use bytes::Bytes;
use lru::LruCache;
use tokio::sync::{Semaphore, mpsc};

use super::Store;
use super::blobs::blob_name;
use crate::error::JobsError;
use crate::metrics::{self, Tier};

/// Bytes of a server's objects kept as files at most, the newest one aside.
const KEPT: u64 = 64 << 30;
/// Blobs hashed or copied at a time.
const AT_ONCE: usize = 2;
/// Pieces on their way from a server to a file.
const UNDER_WAY: usize = 4;

/// A file that is read in windows.
#[derive(Debug)]
pub(super) struct OnDisk {
    file: File,
    size: u64,
    digest: Option<ArtifactDigest>,
}

impl OnDisk {
    /// A file whose digest nobody has computed yet.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size, digest: None })
    }

    pub(super) fn content(self) -> Content {
        Content::Elsewhere(Arc::new(self))
    }
}

impl Windows for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Option<ArtifactDigest> {
        self.digest
    }

    fn window(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }
}

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
    /// The store's file was checked when it looked so.
    Checked(Stamp),
    /// A checked copy of a server's object.
    Copied(Arc<OnDisk>),
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
        Arc::clone(turns.entry(digest).or_default())
    }

    /// Where copies go, if somebody said so.
    pub(super) fn scratch(&self) -> Option<PathBuf> {
        self.scratch.clone()
    }

    fn get(&self, digest: ArtifactDigest) -> Option<Known> {
        // Every change leaves the table whole, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }

    fn insert(&self, digest: ArtifactDigest, known: Known) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.put(digest, known);
        let size = |known: &Known| match known {
            Known::Checked(_) => 0,
            Known::Copied(copy) => copy.size,
        };
        let mut bytes: u64 = all.iter().map(|(_, known)| size(known)).sum();
        while bytes > KEPT && all.len() > 1 {
            let Some((_, oldest)) = all.pop_lru() else { break };
            bytes -= size(&oldest);
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

    /// The store's file at `path`, checked unless it has been. `Ok(Err(_))`: its size
    /// and the digest that it has instead.
    pub(super) fn check(
        &self,
        path: &Path,
        digest: ArtifactDigest,
    ) -> io::Result<Result<OnDisk, (u64, ArtifactDigest)>> {
        let disk = OnDisk::open(path)?;
        let stamp = Stamp::of(&disk.file)?;
        if !matches!(self.get(digest), Some(Known::Checked(known)) if known == stamp) {
            let found = disk_digest(&disk)?;
            if found != digest {
                return Ok(Err((disk.size, found)));
            }
            // Changed while it was read: not known, but what was read is what was asked for.
            if Stamp::of(&disk.file)? == stamp {
                self.insert(digest, Known::Checked(stamp));
            }
        }
        Ok(Ok(OnDisk { digest: Some(digest), ..disk }))
    }

    /// Notes that the store's file at `path` was just written under its digest, or checked.
    pub(super) fn note(&self, path: &Path, digest: ArtifactDigest) -> io::Result<()> {
        self.insert(digest, Known::Checked(Stamp::of(&File::open(path)?)?));
        Ok(())
    }
}

/// Hashes a file piece by piece.
fn disk_digest(disk: &OnDisk) -> io::Result<ArtifactDigest> {
    let mut stream = DigestStream::default();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.size {
        let length = usize::try_from((disk.size - at).min(1 << 20)).map_err(io::Error::other)?;
        disk.file.read_exact_at(&mut piece[..length], at)?;
        stream.update(&piece[..length]);
        at += length as u64;
    }
    Ok(stream.finish())
}

/// Writes pieces into a file as they come; gives it and their digest.
fn collect(
    mut file: File,
    mut pieces: mpsc::Receiver<Bytes>,
) -> io::Result<(OnDisk, ArtifactDigest)> {
    let (mut stream, mut size) = (DigestStream::default(), 0);
    while let Some(piece) = pieces.blocking_recv() {
        stream.update(&piece);
        file.write_all(&piece)?;
        size += piece.len() as u64;
    }
    Ok((OnDisk { file, size, digest: None }, stream.finish()))
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
        let _place = self.large.places.acquire().await;
        let large = Arc::clone(&self.large);
        match blocking(move || large.check(&path, digest)).await? {
            Ok(Ok(disk)) => Ok(disk.content()),
            Ok(Err((size, found))) => Err(self.corrupt(digest, size, found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(digest)),
            Err(error) => Err(self.backend.local(&format!("read {}", blob_name(digest)), error)),
        }
    }

    async fn large_object(&self, digest: ArtifactDigest, size: u64) -> Result<Content, JobsError> {
        let turn = self.large.turn(digest);
        let _turn = turn.lock().await;
        let _place = self.large.places.acquire().await;
        if let Some(Known::Copied(copy)) = self.large.get(digest) {
            return Ok(Content::Elsewhere(copy));
        }
        if let Some(content) = self.host_object(digest, size).await? {
            return Ok(content);
        }
        let large = Arc::clone(&self.large);
        let scratch = |error| self.scratch_failed(digest, size, &error);
        let file = blocking(move || large.nameless()).await?.map_err(scratch)?;
        let disk = self.download(digest, size, file).await?.map_err(scratch)?;
        let copy = Arc::new(disk);
        self.large.insert(digest, Known::Copied(Arc::clone(&copy)));
        Ok(Content::Elsewhere(copy))
    }

    /// A server's object in a file, checked. `Ok(Err(_))`: what the file system says.
    pub(super) async fn download(
        &self,
        digest: ArtifactDigest,
        size: u64,
        file: File,
    ) -> Result<io::Result<OnDisk>, JobsError> {
        let name = blob_name(digest);
        match self.backend.size(&name).await? {
            None => return Err(self.missing(digest)),
            Some(found) if found != size => return Err(self.cut(digest, found, size)),
            Some(_) => {}
        }
        let (sender, pieces) = mpsc::channel(UNDER_WAY);
        let (sent, collected) = futures::join!(
            self.backend.stream(&name, size, sender),
            blocking(move || collect(file, pieces)),
        );
        // A full disk ends the stream too: it is the cause, so it is told.
        let (disk, found) = match collected? {
            Ok(collected) => collected,
            Err(error) => return Ok(Err(error)),
        };
        sent?;
        metrics::bytes_read(size);
        if found != digest {
            return Err(self.corrupt(digest, size, found));
        }
        Ok(Ok(OnDisk { digest: Some(digest), ..disk }))
    }

    fn cut(&self, digest: ArtifactDigest, found: u64, size: u64) -> JobsError {
        let (name, url) = (blob_name(digest), self.url());
        let message = format!(
            "{name} in {url} is corrupt: it has {found} bytes, expected {size}; whatever computes a run \
             that needs it makes it again; so does agrpo replay --rewind"
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
