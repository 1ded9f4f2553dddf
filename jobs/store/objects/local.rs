//! Files of a local store: written whole, and read and listed only where they are regular files.
//!
//! A file's bytes are flushed before it appears, so no power cut leaves a name without its bytes. The folder is not
//! flushed, which halves the wait of every stage: a power cut can lose a whole file, and the stage is computed again.
//! What is no regular file (a FIFO, a device) is never opened, and reported by its kind; links to files are followed.
//! Anything but a folder where a folder belongs is an error. Listings descend into the runs' folders alone.

use std::fs::{self, DirEntry, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use object_store::ObjectMeta;
use tempfile::NamedTempFile;

use crate::{failpoints, regular};

/// How the names of files begin that are being written.
const STAGED: &str = ".new-";
/// Levels of folders below `runs`: the run's, and those in it.
const DEPTH: usize = 2;

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its whole name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock, in milliseconds since 1970.
    pub written_ms: i64,
    /// What it is in a local store, if it is no file.
    pub odd: Option<&'static str>,
}

impl Entry {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let written_ms = meta.last_modified.timestamp_millis();
        Self { name: meta.location.to_string(), size: meta.size, written_ms, odd: None }
    }
}

/// Writes a file. `false`: it has to be new, and is there.
pub(crate) fn write(path: &Path, bytes: &[u8], is_new: bool, flush: bool) -> io::Result<bool> {
    failpoints::write("store::write")?;
    let message = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(message)?;
    file.write_all(bytes)?;
    if flush {
        file.as_file().sync_all()?;
    }
    let named = if is_new { file.persist_noclobber(path) } else { file.persist(path) };
    match named {
        Ok(_) => Ok(true),
        Err(error) if is_new && error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(message(error.error)),
    }
}

/// A temporary file beside `path`, deleted unless it is renamed to it.
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

/// The entry of a regular file. Error where it is none.
pub(crate) fn entry(path: &Path, name: String) -> io::Result<Entry> {
    let entry = look(path, name)?;
    match entry.odd {
        None => Ok(entry),
        Some(_) => Err(regular::explained(path, ErrorKind::NotFound.into())),
    }
}

/// The entry of a path, whatever kind it is.
pub(crate) fn look(path: &Path, name: String) -> io::Result<Entry> {
    let (found, odd) = match fs::metadata(path) {
        Ok(found) => {
            let odd = regular::kind(found.file_type());
            (found, odd)
        }
        Err(error) => match fs::symlink_metadata(path) {
            Ok(link) if link.is_symlink() => (link, Some(regular::NOWHERE)),
            // Gone meanwhile, or hidden from this user.
            _ => return Err(regular::explained(path, error)),
        },
    };
    let written_ms =
        found.mtime().saturating_mul(1000).saturating_add(found.mtime_nsec() / 1_000_000);
    let size = if odd.is_some() { 0 } else { found.len() };
    Ok(Entry { name, size, written_ms, odd })
}

/// The names of all entries directly in a folder.
pub(crate) fn names(path: &Path, _: String) -> io::Result<Vec<String>> {
    Ok(listed(path)?.into_iter().map(|(name, _)| name).collect())
}

/// The names of the folders directly in a folder.
pub(crate) fn folders(path: &Path, _: String) -> io::Result<Vec<String>> {
    let folder = |(name, path): (String, PathBuf)| Ok(is_folder(&path)?.then_some(name));
    listed(path)?.into_iter().filter_map(|entry| folder(entry).transpose()).collect()
}

/// All entries directly in a folder, by name.
fn listed(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(path);
    let entries = entries.map_err(|error| regular::need_folder(path).err().unwrap_or(error))?;
    let named = |entry: DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    entries.filter_map(|entry| entry.map(named).transpose()).collect()
}

/// Whether a path leads to a folder. Error where that cannot be found out.
fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        // A link that leads nowhere, or gone meanwhile.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this is the name of a folder with objects: a run's, or one in it.
fn holds_objects(name: &str) -> bool {
    let parts = name.split('/').count() - 1;
    name.starts_with("runs/") && parts <= DEPTH && !name.ends_with(".json")
}

/// The objects below a folder. Descends into runs' folders only.
pub(crate) fn entries(path: &Path, name: String) -> io::Result<Vec<Entry>> {
    let mut found = vec![];
    for (file, path) in listed(path)? {
        let name = format!("{name}/{file}");
        let looked = match holds_objects(&name) && is_folder(&path)? {
            true => entries(&path, name),
            false => look(&path, name).map(|entry| vec![entry]),
        };
        match looked {
            // Another process deleted it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            looked => found.extend(looked?),
        }
    }
    Ok(found)
}

pub(crate) fn remove(path: &Path, _: String) -> io::Result<()> {
    fs::remove_file(path).map_err(|error| match fs::metadata(path) {
        Ok(found) if found.is_dir() => regular::explained(path, error),
        _ => error,
    })
}

/// Removes a path of any kind; of a link, the link.
pub(crate) fn clear(path: &Path, _: String) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        assert!(write(&path, b"one", true, true).unwrap());
        assert!(!write(&path, b"two", true, true).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(write(&path, b"three", false, false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"three");
        let below_a_file = path.join("d");
        assert!(write(&below_a_file, b"x", true, true).is_err());
        let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "nothing is left over");
    }
}
