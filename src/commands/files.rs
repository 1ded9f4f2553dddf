//! Files that the command line names: read whole, tried for writing, and named in messages.
//!
//! Opens regular files only: a FIFO or a device may wait for ever.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;

use agrpo_spec::utf_8;
use agrpo_store::regular;

use crate::exit::Failure;

/// Bytes of the longest run file, and of a file that is written like one.
const LONGEST_TEXT: u64 = 1 << 20;

/// A file's text; `-` is standard input. Reads at most one byte more than a run file may have.
pub(super) fn read_text(file: &Path) -> Result<String, Failure> {
    let refuse = |why: &str| Failure::usage(format!("cannot read {}: {why}", name_of(file)));
    let refuse_io = |error: std::io::Error| refuse(&plain(&error));
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(regular::open(file).map_err(refuse_io)?)
    };
    let mut bytes = vec![];
    let read = source.by_ref().take(LONGEST_TEXT + 1).read_to_end(&mut bytes).map_err(refuse_io)?;
    if read as u64 > LONGEST_TEXT {
        return Err(refuse(&format!("more than {LONGEST_TEXT} bytes: this is no run file")));
    }
    // Some editors put a mark of byte order first.
    let text = utf_8(&bytes).map_err(|why| refuse(&why))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// What messages call a file.
pub(super) fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// An operating system's error without its number, for a message that names the path itself.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = regular::reason(error).unwrap_or_else(|| error.to_string());
    let text = text.split(" (os error").next().unwrap_or_default();
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

/// Checks before hours of work that a file can be written; what it holds stays.
pub(super) fn try_writing(place: &Path) -> std::io::Result<()> {
    let is_new = !place.exists();
    regular::open_with(place, OpenOptions::new().append(true).create(true))?;
    if is_new { std::fs::remove_file(place) } else { Ok(()) }
}
