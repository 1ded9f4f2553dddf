//! Files that the command line names: read whole, tried for writing, written, and named in messages. Opens regular
//! files only: a FIFO or a device may wait for ever.

use std::collections::BTreeSet;
use std::fs::{DirEntry, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use agrpo_spec::utf_8;
use agrpo_store::regular;

use super::prelude::{Failure, output};

/// Bytes of the longest run file, and of a file that is written like one.
const LONGEST_TEXT: u64 = 1 << 20;

/// A file's bytes as they come; `-` is standard input.
pub(super) fn open(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = regular::open(file).map_err(|error| unreadable(file, &error))?;
    Ok(Box::new(opened))
}

/// A file's text. Reads at most one byte more than a run file may have.
pub(super) fn read_text(file: &Path) -> Result<String, Failure> {
    let refuse = |why: &str| Failure::usage(format!("cannot read {}: {why}", name_of(file)));
    let mut bytes = vec![];
    let read = open(file)?.take(LONGEST_TEXT + 1).read_to_end(&mut bytes);
    if read.map_err(|error| unreadable(file, &error))? as u64 > LONGEST_TEXT {
        return Err(refuse(&format!("more than {LONGEST_TEXT} bytes: this is no run file")));
    }
    // Some editors put a mark of byte order first.
    let text = utf_8(&bytes).map_err(|why| refuse(&why))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    folder.read_dir()?.map(name).collect()
}

/// What messages call a file.
pub(super) fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// An operating system's error without its number, for a message that names the path itself.
pub(super) fn plain(error: &io::Error) -> String {
    let text = regular::reason(error).unwrap_or_else(|| error.to_string());
    let text = text.split(" (os error").next().unwrap_or_default();
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

/// The error about a file that cannot be read.
pub(super) fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {}", name_of(file), plain(error)))
}

/// The error about a file or folder that cannot be written.
pub(super) fn unwritable(place: &Path, error: &io::Error) -> Failure {
    let (place, why) = (place.display(), plain(error));
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Failure::unavailable(format!(
                "{place}: cannot write it: {why}; make room there, or name another place"
            ))
        }
        _ => Failure::usage(format!("{place}: cannot write there: {why}; name another place")),
    }
}

/// Checks before hours of work that a file can be written; what it holds stays.
pub(super) fn try_writing(place: &Path) -> Result<(), Failure> {
    let is_new = !place.exists();
    let opened = regular::open_with(place, OpenOptions::new().append(true).create(true));
    let tried = opened.and_then(|_| if is_new { std::fs::remove_file(place) } else { Ok(()) });
    tried.map_err(|error| unwritable(place, &error))
}

/// Writes a file as a whole.
pub(super) fn write(place: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    regular::write(place, bytes.as_ref()).map_err(|error| unwritable(place, &error))
}

/// Writes a file, and reports it; after the answer, so that an error loses no result.
pub(super) fn write_and_report(place: &Path, text: &str) -> Result<(), Failure> {
    write(place, text)?;
    output::talk(format!("wrote {}", place.display()));
    Ok(())
}

/// Checks before hours of work that the chart of `--plot` can be written.
pub(super) fn try_chart(place: Option<&Path>) -> Result<(), Failure> {
    let Some(place) = place else { return Ok(()) };
    let shown = place.display();
    if place.extension().is_none_or(|extension| extension != "svg") {
        return Err(Failure::usage(format!("--plot {shown}: expected a name that ends in .svg")));
    }
    try_writing(place)
}
