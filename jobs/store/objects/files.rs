//! Writing into a local store: whole files only, on the disk before they have a name.
//!
//! The bytes are flushed before the file appears, so no power cut leaves a name without its bytes. The
//! folder itself is not flushed: what a cut can then take is a whole name, which counts as never
//! computed, and that halves the wait of every stage. Reading and listing are `local.rs`.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{failpoints, regular};

/// How the names of files begin that are being written.
pub(crate) const STAGED: &str = ".new-";

/// Whether a standing file may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Create,
    Replace,
}

/// Writes a file. `false`: it was to be created, but is there.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: Mode, flush: bool) -> io::Result<bool> {
    failpoints::write("store::write")?;
    let message = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(message)?;
    file.write_all(bytes)?;
    if flush {
        file.as_file().sync_all()?;
    }
    let named = match mode {
        Mode::Create => file.persist_noclobber(path),
        Mode::Replace => file.persist(path),
    };
    match named {
        Ok(_) => Ok(true),
        Err(error) if mode == Mode::Create && error.error.kind() == ErrorKind::AlreadyExists => {
            Ok(false)
        }
        Err(error) => Err(message(error.error)),
    }
}

/// A nameless file beside `path`, gone again unless it gets that name.
pub(crate) fn staged(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(path);
    let mut builder = tempfile::Builder::new();
    // Several people may share a store: the process's umask decides, as for any other file.
    builder.prefix(STAGED).permissions(Permissions::from_mode(0o666));
    match builder.tempfile_in(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            builder.tempfile_in(folder)
        }
        other => other,
    }
}

/// Whether a killed writer left this behind.
pub fn is_leftover(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.starts_with(STAGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        assert!(write(&path, b"one", Mode::Create, true).unwrap());
        assert!(!write(&path, b"two", Mode::Create, true).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(write(&path, b"three", Mode::Replace, false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"three");
        let below_a_file = path.join("d");
        assert!(write(&below_a_file, b"x", Mode::Create, true).is_err());
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }
}
