//! Opening what may be no file: a FIFO, a socket, a device or a folder is refused by name.
//!
//! Opening a FIFO waits for a writer, and reading a device may never end, so what a path leads to is asked
//! before it is opened, and once more of what was opened. Links are followed: stores and model folders are
//! made of them. Nothing here reads an environment or decides what an error means to the caller.

use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A link to nothing, or in a circle.
pub(crate) const NOWHERE: &str = "a symbolic link that leads nowhere";

/// A path that leads to no regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoFile {
    path: PathBuf,
    kind: &'static str,
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected a regular file", self.path.display(), self.kind)
    }
}

impl std::error::Error for NoFile {}

/// What something is that is no regular file; `None` for a regular file.
pub fn kind(of: FileType) -> Option<&'static str> {
    match of {
        _ if of.is_file() => None,
        _ if of.is_dir() => Some("a folder"),
        _ if of.is_fifo() => Some("a FIFO"),
        _ if of.is_socket() => Some("a socket"),
        _ if of.is_char_device() => Some("a character device"),
        _ if of.is_block_device() => Some("a block device"),
        _ if of.is_symlink() => Some("a symbolic link"),
        _ => Some("something else"),
    }
}

/// Whether an error is this refusal.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<NoFile>())
}

fn refuse(path: &Path, found: &Metadata) -> io::Result<()> {
    match kind(found.file_type()) {
        None => Ok(()),
        Some(kind) => Err(refusal(path, kind)),
    }
}

fn refusal(path: &Path, kind: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, NoFile { path: path.to_owned(), kind })
}

/// Opens a regular file with these options. Never waits; an error that names path and kind where it is
/// something else.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(found) => refuse(path, &found)?,
        // The options say what becomes of it.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => match std::fs::symlink_metadata(path) {
            Ok(link) if link.is_symlink() => return Err(refusal(path, NOWHERE)),
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
    open_with(path, OpenOptions::new().read(true))
}

/// Reads a regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file of UTF-8 text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
