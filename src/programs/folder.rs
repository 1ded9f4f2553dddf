//! The folder of a program, and the removal of folders that ended processes of agrpo left behind.
//!
//! A folder holds `files`, where its program runs, and `owner`, which names the program's mark. The process that
//! started the program keeps `owner` locked, and the system releases the lock with the process, so a lock that can be
//! taken says that the folder has no owner; process numbers differ between containers that share folders. Removes no
//! folder whose lock is taken, that is another user's, or that has no lock.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::{family, group::Groups};

const PREFIX: &str = "agrpo-reward-";
/// Prefix of a folder that is being made; `remove_orphans` ignores it, as its lock is not taken yet.
const NEW: &str = ".agrpo-reward-";
const OWNER: &str = "owner";
const FILES: &str = "files";

/// Marks are file sizes that no file reaches: the upper half of all sizes.
const LEAST_MARK: u64 = 1 << 62;

/// A program's folder; dropping the value removes it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Distinguishes the processes of its program from those of others.
    pub(crate) mark: u64,
    _owner: File,
}

impl Folder {
    pub(crate) fn new(below: &Path) -> io::Result<Self> {
        let new = tempfile::Builder::new().prefix(NEW).tempdir_in(below)?;
        let mut owner = File::create_new(new.path().join(OWNER))?;
        owner.try_lock()?;
        let name = new.path().file_name().unwrap_or_default().to_string_lossy();
        let mark = LEAST_MARK + number(&name);
        owner.write_all(mark.to_string().as_bytes())?;
        std::fs::create_dir(new.path().join(FILES))?;
        let path = below.join(&name[1..]);
        std::fs::rename(new.path(), &path)?;
        drop(new.keep());
        Ok(Self { path, mark, _owner: owner })
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Writes a file that its owner may also run.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.files().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// A number below 2^61 from a random name.
fn number(name: &str) -> u64 {
    name.bytes().fold(0, |number: u64, byte| number.wrapping_mul(131).wrapping_add(byte.into()))
        >> 3
}

/// Removes a folder. After an error the next start of agrpo tries again.
pub(crate) fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", folder.display());
    }
}

/// Kills the programs and removes the folders of processes of agrpo that have ended.
pub(crate) fn remove_orphans(below: &Path) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        // Metadata of the entry itself: links are not followed.
        let is_ours = |found: Metadata| found.is_dir() && found.uid() == geteuid().as_raw();
        let folder = entry.path();
        let owner = entry.metadata().is_ok_and(is_ours).then(|| File::open(folder.join(OWNER)));
        let Some(Ok(owner)) = owner else { continue };
        if owner.try_lock().is_err() {
            continue;
        }
        if let Some(groups) = Groups::of_this_process() {
            groups.end(name);
        }
        let mark = io::read_to_string(&owner).ok().and_then(|text| text.parse().ok());
        let ended = mark.filter(|&mark| mark >= LEAST_MARK).map_or(0, family::end_marked);
        remove(&folder);
        tracing::info!(
            "removed {} of an agrpo that has ended, and killed {ended} processes of its program",
            folder.display()
        );
    }
}
