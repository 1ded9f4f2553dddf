//! Reading and listing a local store: what is no regular file is never opened, and reported by its kind.
//!
//! Anyone may put things into a store's folder. Opening a FIFO in it would wait for ever, and a link to a device would be
//! read without end; a link to a file is as good as the file. Something else in the place of a folder is an error, and
//! not an empty folder. Listings descend into the runs' folders alone, and follow links to folders no deeper than a store
//! is. Writing is `files.rs`.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;

use super::entry::Entry;
use crate::regular;

/// Folders below `runs`: a run, and one of its own.
const DEPTH: usize = 2;

/// A file's bytes.
pub(crate) fn read(path: &Path, _: String) -> io::Result<Bytes> {
    regular::read(path).map(Bytes::from)
}

/// What a listing says of a file. Error where it is none.
pub(crate) fn entry(path: &Path, name: String) -> io::Result<Entry> {
    let entry = look(path, name)?;
    match entry.odd {
        None => Ok(entry),
        Some(_) => Err(regular::explained(path, ErrorKind::NotFound.into())),
    }
}

/// What a listing says of whatever is there.
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

/// The names of what lies right in a folder.
pub(crate) fn names(path: &Path, _: String) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in listed(path)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The names of the folders right in a folder.
pub(crate) fn folders(path: &Path, _: String) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in listed(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_folder(&entry.path())? {
            names.push(name);
        }
    }
    Ok(names)
}

fn listed(path: &Path) -> io::Result<fs::ReadDir> {
    fs::read_dir(path).map_err(|error| regular::need_folder(path).err().unwrap_or(error))
}

/// Whether a path leads to a folder. Error where that cannot be said.
fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        // A link that leads nowhere, or gone meanwhile.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Everything below a folder. Of the runs' folders what lies in them, of all others what lies right there: a
/// folder among blobs or records is none.
pub(crate) fn entries(path: &Path, name: String) -> io::Result<Vec<Entry>> {
    let mut found = vec![];
    walk(path, &name, &mut found)?;
    Ok(found)
}

/// Whether this is a folder by its name: a run, or one of its own.
fn holds_objects(name: &str) -> bool {
    let parts = name.split('/').count() - 1;
    name.starts_with("runs/") && parts <= DEPTH && !name.ends_with(".json")
}

fn walk(path: &Path, name: &str, found: &mut Vec<Entry>) -> io::Result<()> {
    for entry in listed(path)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        let looked = match holds_objects(&name) && is_folder(&path)? {
            true => walk(&path, &name, found),
            false => look(&path, name).map(|entry| found.push(entry)),
        };
        match looked {
            // Others delete meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            looked => looked?,
        }
    }
    Ok(())
}

/// Removes a file.
pub(crate) fn remove(path: &Path, _: String) -> io::Result<()> {
    fs::remove_file(path).map_err(|error| match fs::metadata(path) {
        Ok(found) if found.is_dir() => regular::explained(path, error),
        _ => error,
    })
}

/// Removes whatever is there; of a link, the link.
pub(crate) fn clear(path: &Path, _: String) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}
