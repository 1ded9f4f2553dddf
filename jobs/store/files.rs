//! Writing into a local store: whole files only, on the disk before they have a name.
//!
//! The bytes are flushed before the file appears, so no power cut leaves a name without its bytes. The
//! folder itself is not flushed: what a cut can then take is a whole name, which counts as never
//! computed, and that halves the wait of every stage. Reading and listing are `local.rs`.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use agrpo_spec::{ArtifactDigest, Content, WINDOW};
use tempfile::NamedTempFile;

use super::checked::{Blocks, Hashing};
use crate::{failpoints, regular};

/// How the names of files begin that are being written.
pub(super) const STAGED: &str = ".new-";

/// Whether a standing file may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Create,
    Replace,
}

/// Writes a large file from windows, whatever was there; nothing appears where the bytes are not those
/// that the digest names, which is then answered with theirs.
pub(super) fn copy(
    path: &Path,
    content: &Content,
    digest: ArtifactDigest,
) -> io::Result<Result<Blocks, ArtifactDigest>> {
    failpoints::write("store::write")?;
    let told = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(told)?;
    let mut hashing = Hashing::default();
    for range in content.ranges(WINDOW) {
        let bytes = content.window(range)?;
        hashing.update(&bytes);
        file.write_all(&bytes)?;
    }
    let blocks = hashing.finish();
    if blocks.digest() != digest {
        return Ok(Err(blocks.digest()));
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| told(error.error))?;
    Ok(Ok(blocks))
}

/// Writes a file. `false`: it was to be created, but is there.
pub(super) fn write(path: &Path, bytes: &[u8], mode: Mode, flush: bool) -> io::Result<bool> {
    failpoints::write("store::write")?;
    let told = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(told)?;
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
        Err(error) => Err(told(error.error)),
    }
}

/// A nameless file beside `path`, gone again unless it gets that name.
fn staged(path: &Path) -> io::Result<NamedTempFile> {
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
