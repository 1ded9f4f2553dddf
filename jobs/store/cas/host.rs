//! A host's cache of a server's blobs: files by digest in a folder that all its workers share.
//!
//! ```text
//! blobs/<two digits>/<digest>   whole blobs, there by rename
//! new/.new-*                    blobs on their way, each locked by its writer
//! turns/<two digits>            locked by the process that fetches one of those digests
//! room                          locked by the process that makes room; holds the bytes taken, at least
//! ```
//! There is no daemon: processes meet in these files alone. Locks are the kernel's (`flock`) and end with their
//! holder; no process waits for ever for one that was stopped. The bound counts blobs on their way, so it holds at any
//! moment. A process that lacks room deletes the least recently used files; a reader that has one open keeps it. Every
//! reader hashes what it reads, and no failure of this folder is one of a stage: a full or broken disk turns the cache
//! off for the process, with one warning.
//!
//! The folder is made for its owner alone (0700). A group shares one that was made beforehand with `chmod 2770`; one
//! that everybody may write to is not used.

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

/// Smaller blobs are fetched again sooner than they are looked after.
pub(super) const SMALLEST: u64 = 64 << 10;
/// The default bound, unless the disk has less to spare.
const USUAL: u64 = 64 << 30;
/// Of what the disk could give, the cache takes one in so many by itself.
const SHARE: u64 = 4;
/// How long a process may take to make room.
const ROOM: Duration = Duration::from_secs(5);
/// How long a process may take to fetch a blob, and bytes a second on top of it.
const TURN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
const SLOW: u64 = 16 << 20;
/// Between two looks at a lock, at first and at most.
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
    /// A cache of at most `limit` bytes, by default as much as the disk spares. Error where the folder cannot be used.
    pub(super) fn open(folder: &Path, limit: Option<u64>) -> io::Result<Self> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let mode = fs::metadata(folder)?.mode();
        if mode & 0o002 != 0 {
            let message = "everybody may write to it; take it away from others (chmod o-w)";
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

    /// Turns the cache off for this process, and says so once.
    pub(super) fn give_up(&self, error: &io::Error) {
        if !self.is_off.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "the cache of blobs is not used any more by this process");
        }
    }

    pub(super) fn path(&self, digest: ArtifactDigest) -> PathBuf {
        let digest = digest.to_string();
        self.folder.join("blobs").join(&digest[..2]).join(digest)
    }

    /// A blob's file, which was used just now.
    pub(super) fn file(&self, digest: ArtifactDigest) -> io::Result<File> {
        let file = regular::open(&self.path(digest))?;
        // Who may not set it has another one's blob thrown away sooner, and nothing worse.
        regular::touch(&file, true).ok();
        Ok(file)
    }

    /// A blob's bytes, not yet checked.
    pub(super) fn read(&self, digest: ArtifactDigest) -> io::Result<Bytes> {
        let mut bytes = vec![];
        self.file(digest)?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    pub(super) fn discard(&self, digest: ArtifactDigest) {
        tracing::warn!(%digest, folder = %self.folder.display(), "throwing away a damaged blob of the cache");
        fs::remove_file(self.path(digest)).ok();
    }

    /// Waits until no other process fetches this blob of `size` bytes, and locks it while the file is held; without an
    /// answer in time, which a process that was stopped cannot give, the caller fetches beside it.
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
        tracing::debug!(%digest, "another process fetches it for too long; fetching it as well");
        None
    }

    /// A file with room for a blob of `size` bytes, gone again unless it is kept. None where it cannot be had.
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
        // Counted before it is there: a death in between costs a count, not the bound.
        room.set_len(0)?;
        room.rewind()?;
        room.write_all((taken + size).to_string().as_bytes())?;
        Ok(Some(file))
    }

    /// Gives a draft its name. What it held stays readable in any case.
    pub(super) fn keep(&self, draft: NamedTempFile, digest: ArtifactDigest) -> io::Result<()> {
        let path = self.path(digest);
        if let Some(parent) = path.parent() {
            self.make_folder(parent)?;
        }
        draft.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Keeps bytes whose digest was computed, where there is room.
    pub(super) fn put(&self, digest: ArtifactDigest, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        if fs::metadata(self.path(digest)).is_ok_and(|meta| meta.len() == size) {
            return Ok(());
        }
        let Some(mut draft) = self.reserve(size)? else { return Ok(()) };
        draft.write_all(bytes)?;
        self.keep(draft, digest)
    }

    /// The lock on the table of what is taken; none where another process holds it for too long.
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

    /// Throws away drafts of the dead and what was used longest ago; answers with the bytes that are left.
    /// A tenth more than is needed goes, so that not every blob has the whole folder looked at.
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
                // Another process may just have thrown it away.
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

    /// Bytes that are taken, as the table says.
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
            // Another process may have made it meanwhile, with the same mode.
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
