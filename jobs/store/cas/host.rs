//! A host's cache of a server's blobs: files by digest in a folder that all its workers share.
//!
//! ```text
//! blobs/<two digits>/<digest>   whole blobs, placed by rename
//! new/.new-*                    blobs being written, each locked by its writer
//! turns/<two digits>            locked by the process that fetches a blob whose digest begins so
//! room                          locked by the process that reserves bytes; holds how many are taken, at least
//! ```
//! There is no daemon: processes coordinate by these files alone. Locks are the kernel's (`flock`) and end with their
//! holder, and every wait for one is bounded, since the holder may be stopped. The limit counts blobs being written,
//! so it holds at any moment. A process that lacks room deletes the least recently used files; a reader that has one
//! open can go on reading it. Every reader hashes what it reads. An error of this folder fails no stage: a full or
//! broken disk turns the cache off for the process, with one warning.
//!
//! The folder is created for its owner alone (0700). A group shares one that was created with `chmod 2770`; one
//! that all users may write to is refused.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::regular;

/// Smaller blobs are not cached: fetching one again is cheaper than a file for it.
pub(super) const SMALLEST: u64 = 64 << 10;
/// The default bound, unless the disk has less to spare.
const USUAL: u64 = 64 << 30;
/// Without a limit the cache takes this fraction of the disk's free bytes: one in so many.
const SHARE: u64 = 4;
/// How long a process may take to make room.
const ROOM: Duration = Duration::from_secs(5);
/// How long a process may take to fetch a blob, and bytes a second on top of it.
const TURN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
const SLOW: u64 = 16 << 20;
/// Pause between two tries to lock a file: the first one, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A folder of blobs, shared with other processes.
#[derive(Debug)]
pub(super) struct HostCache {
    folder: PathBuf,
    limit: u64,
    is_shared: bool,
    is_off: AtomicBool,
}

impl HostCache {
    /// A cache of at most `limit` bytes, by default a share of the free disk. Error where the folder cannot be used.
    pub(super) fn open(folder: &Path, limit: Option<u64>) -> io::Result<Self> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let mode = fs::metadata(folder)?.mode();
        if mode & 0o002 != 0 {
            let message = "all users may write to it; take that right from others (chmod o-w)";
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        let is_shared = mode & 0o020 != 0;
        let cache = Self { folder: folder.to_owned(), limit: 0, is_shared, is_off: false.into() };
        for part in ["blobs", "new", "turns"] {
            cache.make_folder(&folder.join(part))?;
        }
        let limit = match limit {
            Some(limit) => limit,
            None => {
                let disk = rustix::fs::statvfs(folder)?;
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                USUAL.min((free + cache.taken().unwrap_or(0)) / SHARE)
            }
        };
        Ok(Self { limit, ..cache })
    }

    /// Whether it still serves this process.
    pub(super) fn is_on(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed)
    }

    /// Turns the cache off for this process, and logs that once.
    pub(super) fn give_up(&self, error: &io::Error) {
        if !self.is_off.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "this process no longer uses the host's cache of blobs");
        }
    }

    pub(super) fn path(&self, digest: ArtifactDigest) -> PathBuf {
        let digest = digest.to_string();
        self.folder.join("blobs").join(&digest[..2]).join(digest)
    }

    /// Opens a blob's file and marks it as just used.
    pub(super) fn file(&self, digest: ArtifactDigest) -> io::Result<File> {
        let file = regular::open(&self.path(digest))?;
        // Another user's file keeps its old time, so it is deleted sooner: that costs a download.
        regular::touch(&file, true).ok();
        Ok(file)
    }

    /// Reads a blob's bytes and does not check them.
    pub(super) fn read(&self, digest: ArtifactDigest) -> io::Result<Bytes> {
        let mut bytes = vec![];
        self.file(digest)?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    pub(super) fn discard(&self, digest: ArtifactDigest) {
        tracing::warn!(%digest, folder = %self.folder.display(), "deleting a damaged blob from the cache");
        fs::remove_file(self.path(digest)).ok();
    }

    /// Waits until no other process fetches this blob of `size` bytes, and locks it while the file is held. `None`
    /// where the lock is not free in time, as when its holder was stopped: the caller fetches the blob as well.
    pub(super) async fn turn(&self, digest: ArtifactDigest, size: u64) -> Option<File> {
        let path = self.folder.join("turns").join(&digest.to_string()[..2]);
        let lock = self.lock_file(&path).ok()?;
        let deadline = tokio::time::Instant::now() + TURN + Duration::from_secs(size / SLOW);
        let mut pause = LOOK.0;
        while tokio::time::Instant::now() < deadline {
            match lock.try_lock() {
                Ok(()) => return Some(lock),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(pause).await,
                Err(TryLockError::Error(_)) => return None,
            }
            pause = (pause * 2).min(LOOK.1);
        }
        tracing::debug!(%digest, "another process has not fetched the blob in time; fetching it as well");
        None
    }

    /// A temporary file with room for a blob of `size` bytes, deleted unless it is committed. None without room.
    pub(super) fn reserve(&self, size: u64) -> io::Result<Option<NamedTempFile>> {
        if size > self.limit || !self.is_on() {
            return Ok(None);
        }
        let Some(mut room) = self.room()? else { return Ok(None) };
        let fits = |taken: &u64| taken.saturating_add(size) <= self.limit;
        let taken = match self.taken().filter(fits) {
            Some(taken) => taken,
            None => self.make_room(size)?,
        };
        if !fits(&taken) {
            return Ok(None);
        }
        let file = tempfile::Builder::new().prefix(".new-").tempfile_in(self.folder.join("new"))?;
        file.as_file().lock()?;
        fs::set_permissions(file.path(), Permissions::from_mode(self.file_mode()))?;
        file.as_file().set_len(size)?;
        // Counted before the blob is written: after a crash the count is too high, never too low.
        room.set_len(0)?;
        room.rewind()?;
        room.write_all((taken + size).to_string().as_bytes())?;
        Ok(Some(file))
    }

    /// Gives a draft its name. Its open file stays readable even where that fails.
    pub(super) fn commit(&self, draft: NamedTempFile, digest: ArtifactDigest) -> io::Result<()> {
        let path = self.path(digest);
        if let Some(parent) = path.parent() {
            self.make_folder(parent)?;
        }
        draft.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Caches bytes whose digest was computed, where there is room.
    pub(super) fn put(&self, digest: ArtifactDigest, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        if fs::metadata(self.path(digest)).is_ok_and(|meta| meta.len() == size) {
            return Ok(());
        }
        let Some(mut draft) = self.reserve(size)? else { return Ok(()) };
        draft.write_all(bytes)?;
        self.commit(draft, digest)
    }

    /// The lock on the count of bytes taken; none where another process holds it for too long.
    fn room(&self) -> io::Result<Option<File>> {
        let lock = self.lock_file(&self.folder.join("room"))?;
        let mut waited = Duration::ZERO;
        while waited < ROOM {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK.0),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            waited += LOOK.0;
        }
        Ok(None)
    }

    /// Deletes drafts of dead processes and the least recently used blobs; returns the bytes that remain. Frees a tenth
    /// more than is needed, so that not every blob costs a walk through the folder.
    fn make_room(&self, size: u64) -> io::Result<u64> {
        let mut taken = 0;
        for path in files_in(&self.folder.join("new"))? {
            let Ok(draft) = regular::open(&path) else { continue };
            match draft.try_lock() {
                Ok(()) => drop(fs::remove_file(&path)),
                Err(_) => taken += draft.metadata()?.len(),
            }
        }
        let mut all = vec![];
        for folder in files_in(&self.folder.join("blobs"))? {
            for path in files_in(&folder)? {
                // Another process may have deleted it meanwhile.
                let Ok(meta) = fs::metadata(&path) else { continue };
                all.push(((meta.atime(), meta.atime_nsec()), meta.len(), path));
            }
        }
        taken += all.iter().map(|(_, size, _)| size).sum::<u64>();
        all.sort_unstable();
        let goal = (self.limit - self.limit / 10).max(size) - size;
        for (_, size, path) in all {
            if taken <= goal {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => taken -= size,
            }
        }
        Ok(taken)
    }

    /// The count of bytes taken.
    fn taken(&self) -> Option<u64> {
        let table = regular::read(&self.folder.join("room")).ok()?;
        String::from_utf8(table).ok()?.trim().parse().ok()
    }

    fn file_mode(&self) -> u32 {
        if self.is_shared { 0o660 } else { 0o600 }
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mode = if self.is_shared { 0o2770 } else { 0o700 };
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode))),
        }
    }

    fn lock_file(&self, path: &Path) -> io::Result<File> {
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = regular::open_with(path, &mut options)?;
        if is_new {
            // Another process may have created it meanwhile, with the same mode.
            file.set_permissions(Permissions::from_mode(self.file_mode())).ok();
        }
        Ok(file)
    }
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match folder.read_dir() {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
