//! Opens regular files, and refuses anything else (a FIFO, a socket, a device, a folder) by its kind.
//!
//! Opening a FIFO waits for a writer, and reading a device may never end, so a path is examined before it is opened,
//! and the open file once more. Links are followed: stores and model folders contain them.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

use crate::error::causes;

const FILE: &str = "a regular file";
const FOLDER: &str = "a folder";
/// A dangling link, or a loop of links.
pub(crate) const NOWHERE: &str = "a symbolic link that leads nowhere";

/// A path that leads to no regular file, or to no folder where one has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {}", .path.display(), self.reason())]
pub struct NoFile {
    path: PathBuf,
    kind: &'static str,
    expected: &'static str,
}

impl NoFile {
    fn reason(&self) -> String {
        format!("is {}, expected {}", self.kind, self.expected)
    }
}

/// The kind of a file, for messages; `None` for a regular file.
pub fn kind(of: FileType) -> Option<&'static str> {
    match of {
        _ if of.is_file() => None,
        _ if of.is_dir() => Some(FOLDER),
        _ if of.is_fifo() => Some("a FIFO"),
        _ if of.is_socket() => Some("a socket"),
        _ if of.is_char_device() => Some("a character device"),
        _ if of.is_block_device() => Some("a block device"),
        _ if of.is_symlink() => Some("a symbolic link"),
        _ => Some("something else"),
    }
}

/// The reason of an error that is a [`NoFile`], without the path; `None` for another error.
pub fn reason(error: &io::Error) -> Option<String> {
    refusal_in(error).map(NoFile::reason)
}

/// The [`NoFile`] among the causes of an error.
pub(crate) fn refusal_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a NoFile> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
}

fn refuse(path: &Path, found: &Metadata) -> io::Result<()> {
    match kind(found.file_type()) {
        None => Ok(()),
        Some(kind) => Err(refusal(path, kind, FILE)),
    }
}

fn refusal(path: &Path, kind: &'static str, expected: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, NoFile { path: path.to_owned(), kind, expected })
}

/// The kind of an existing path that is no folder; `None` for a folder and where nothing exists.
pub(crate) fn no_folder(path: &Path) -> Option<&'static str> {
    fs::symlink_metadata(path).ok()?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => None,
        Ok(found) => Some(kind(found.file_type()).unwrap_or("a file")),
        Err(_) => Some(NOWHERE),
    }
}

/// Refuses a path of which the deepest part that exists is no folder.
pub(crate) fn need_folder(path: &Path) -> io::Result<()> {
    let is_there = |path: &&Path| fs::symlink_metadata(path).is_ok();
    match path.ancestors().find(is_there).and_then(|found| Some((found, no_folder(found)?))) {
        Some((found, kind)) => Err(refusal(found, kind, FOLDER)),
        None => Ok(()),
    }
}

/// The same error; or a [`NoFile`], where the path is no regular file or leads through something that is no folder.
pub(crate) fn explained(path: &Path, error: io::Error) -> io::Error {
    let found = match fs::metadata(path) {
        Ok(found) => refuse(path, &found),
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            Err(refusal(path, NOWHERE, FILE))
        }
        Err(_) => path.parent().map_or(Ok(()), need_folder),
    };
    found.err().unwrap_or(error)
}

/// Opens a regular file with these options. Never waits; an error names path and kind where it is something else.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) => refuse(path, &found)?,
        // Whether it is created depends on the options.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => match fs::symlink_metadata(path) {
            Ok(link) if link.is_symlink() => return Err(refusal(path, NOWHERE, FILE)),
            _ => return Err(error),
        },
    }
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = options.custom_flags(flags.cast_signed()).open(path)?;
    refuse(path, &file.metadata()?)?;
    Ok(file)
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true)).map_err(|error| explained(path, error))
}

/// Sets the access time of a file to now, or its modification time.
pub(crate) fn touch(file: &File, is_read: bool) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let same = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let (last_access, last_modification) = if is_read { (now, same) } else { (same, now) };
    Ok(futimens(file, &Timestamps { last_access, last_modification })?)
}

/// Sets the modification time of the file at `path` to now.
pub(crate) fn renew(path: &Path) -> io::Result<()> {
    touch(&open(path)?, false)
}

/// Creates or overwrites a regular file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open_with(path, OpenOptions::new().write(true).create(true).truncate(true))?.write_all(bytes)
}

/// Reads a regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
