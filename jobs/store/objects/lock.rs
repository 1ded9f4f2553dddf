//! Locks of a local store: files that nobody reads, each locked by one process at a time through the operating system.
//!
//! A lock ends with its process, however that ends. Stores on servers have none, nor have file systems that cannot lock:
//! there every caller gets the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{action::Action, client::Objects};
use crate::{Result, regular};

/// A lock of this process until this is dropped; then its file is deleted.
#[derive(Debug, Default)]
pub struct Lock {
    locked: Option<(PathBuf, File)>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.locked {
            // The next process makes another one.
            fs::remove_file(path).ok();
        }
    }
}

impl Objects {
    /// Takes a lock; `None` where another one of this process or of another has it.
    pub(crate) async fn lock(&self, name: &str) -> Result<Option<Lock>> {
        let lock = self.in_folder(Action::Write, name, lock).await?;
        Ok(lock.unwrap_or_else(|| Some(Lock::default())))
    }
}

fn lock(path: &Path, _: String) -> io::Result<Option<Lock>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = regular::open_with(path, &mut options)?;
        match file.try_lock() {
            Ok(()) if is_deleted(&file)? => {}
            Ok(()) => return Ok(Some(Lock { locked: Some((path.to_owned(), file)) })),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(_)) => return Ok(Some(Lock::default())),
        }
    }
}

/// Whether the process that had locked the file deleted it after it was opened here.
fn is_deleted(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_free_when_its_process_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/a");
        let lock = || super::lock(&path, String::new()).unwrap();
        let first = lock().unwrap();
        assert!(lock().is_none());
        drop(first);
        assert!(!path.exists());
        // What a process that was killed leaves behind is not locked.
        fs::write(&path, "").unwrap();
        let second = lock().unwrap();
        assert!(lock().is_none());
        drop(second);
        assert!(lock().is_some());
    }

    #[test]
    fn of_many_that_take_a_lock_in_turn_no_two_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let ordering = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..500 {
                        let Some(lock) = super::lock(&path, String::new()).unwrap() else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, ordering), 0);
                        inside.fetch_sub(1, ordering);
                        drop(lock);
                    }
                });
            }
        });
    }
}
