//! Reading and listing a local store: what is no regular file is never opened, and told by its kind.
//!
//! A store's folder lies where anybody may put things. Opening a FIFO in it would wait for ever, and a link
//! to a device would be read without end; a link to a file is as good as the file. Listings go down into
//! the runs' folders alone, and follow links to folders no deeper than a store is. Writing is `files.rs`.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;

use super::backend::{Backend, Entry};
use super::large::blocking;
use crate::error::JobsError;
use crate::regular;

/// Folders below `runs`: a run, and one of its own.
const DEPTH: u32 = 3;

impl Backend {
    /// Does something with a path of a local store that may be missing.
    pub(super) async fn in_folder<T: Send + 'static>(
        &self,
        action: &str,
        name: &str,
        work: fn(&Path, String) -> io::Result<T>,
    ) -> Result<Option<T>, JobsError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let once = || async {
            let (path, name) = (path.clone(), name.to_owned());
            let work = async { Ok(blocking(move || work(&path, name)).await) };
            match self.within(0, action, work).await? {
                Ok(done) => match done? {
                    Ok(done) => Ok(Some(done)),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(error) => Err(self.local(action, error)),
                },
                Err(error) => Err(self.explain(action, &error)),
            }
        };
        self.patiently(once).await
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A file's bytes.
pub(super) fn read(path: &Path, _: String) -> io::Result<Bytes> {
    regular::read(path).map(Bytes::from)
}

/// What a listing says of a file.
pub(super) fn entry(path: &Path, name: String) -> io::Result<Entry> {
    let entry = look(path, name)?;
    match entry.odd {
        None => Ok(entry),
        // Says it in the words of whoever opens it.
        Some(_) => Err(regular::open(path).err().unwrap_or_else(|| ErrorKind::NotFound.into())),
    }
}

fn look(path: &Path, name: String) -> io::Result<Entry> {
    let (found, odd) = match fs::metadata(path) {
        Ok(found) => {
            let odd = regular::kind(found.file_type());
            (found, odd)
        }
        Err(error) => match fs::symlink_metadata(path) {
            Ok(link) if link.is_symlink() => (link, Some(regular::NOWHERE)),
            // Gone meanwhile, or for whoever may see it.
            _ => return Err(error),
        },
    };
    let written_ms =
        found.mtime().saturating_mul(1000).saturating_add(found.mtime_nsec() / 1_000_000);
    let size = if odd.is_some() { 0 } else { found.len() };
    Ok(Entry { name, size, written_ms, odd })
}

/// The names of what lies right in a folder, folders left out.
pub(super) fn names(path: &Path, _: String) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// The names of the folders right in a folder.
pub(super) fn folders(path: &Path, _: String) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// Everything below a folder. Of the runs' folders what lies in them, of all others what lies right there: a
/// folder among blobs is none.
pub(super) fn entries(path: &Path, name: String) -> io::Result<Vec<Entry>> {
    let depth = if name.split('/').next() == Some("runs") { DEPTH } else { 0 };
    let mut found = vec![];
    walk(path, &name, depth, &mut found)?;
    Ok(found)
}

fn walk(path: &Path, name: &str, depth: u32, found: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        if depth > 0 && path.is_dir() {
            match walk(&path, &name, depth - 1, found) {
                Err(error) if is_absent(&error) => {}
                walked => walked?,
            }
            continue;
        }
        match look(&path, name) {
            // Others delete meanwhile.
            Err(error) if is_absent(&error) => {}
            entry => found.push(entry?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
