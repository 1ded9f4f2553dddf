//! Files that the command line names: read whole, tried for writing, written, and named in messages. Opens regular
//! files only, besides what is open already: a FIFO or a device may wait for ever.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::{collections::BTreeSet, path::Path};

use agrpo_spec::utf_8;
use agrpo_store::regular;

use super::prelude::{Failure, Result, output};

/// Bytes of the longest run file, and of a file that is written like one.
const LONGEST_TEXT: u64 = 1 << 20;

/// A file's bytes as they come; `-` is standard input.
pub(super) fn open(file: &Path) -> Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = if is_descriptor(file) { File::open(file) } else { regular::open(file) };
    Ok(Box::new(opened.map_err(|error| unreadable(file, &error))?))
}

/// Whether a path names an open descriptor of this process, as a shell's `<(COMMAND)` does. Like standard input, it has
/// been opened already.
fn is_descriptor(file: &Path) -> bool {
    let folder = file.parent();
    let is_in = |place| folder == Some(Path::new(place));
    file == Path::new("/dev/stdin") || is_in("/dev/fd") || is_in("/proc/self/fd")
}

/// A file's text. Reads at most one byte more than a run file may have.
pub(super) fn read_text(file: &Path) -> Result<String> {
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

/// A kind of file that agrpo writes, known again by its first characters and by a text that it holds.
pub(super) struct Kind {
    name: &'static str,
    begin: &'static str,
    part: &'static str,
}

impl Kind {
    const fn new(name: &'static str, begin: &'static str, part: &'static str) -> Self {
        Self { name, begin, part }
    }
}

pub(super) const REPORT: Kind = Kind::new("report", "<!DOCTYPE html>", " – agrpo</title>");
pub(super) const SVG: Kind = Kind::new("chart", "<svg width=", "<rect x=\"0\" y=\"0\"");
pub(super) const PNG: Kind = Kind::new("chart", "\u{fffd}PNG\r\n", "IHDR");
pub(super) const PAGE: Kind = Kind::new("comparison", "# ", " by `agrpo compare`.");
pub(super) const NUMBERS: Kind = Kind::new("comparison", "{\n  \"steps\": [", "\"variants\": [");
pub(super) const BENCH_PAGE: Kind =
    Kind::new("page of a measurement", "# ", "Measured by `agrpo bench-gpu`");
pub(super) const BENCH: Kind = Kind::new("measurement", "{\n  \"agrpo\": ", "\"libtorch\": ");

/// Checks, also before hours of work, that a file can be written; what it holds stays. Refuses to replace a file that
/// is not empty and that agrpo did not write as one of this kind.
pub(super) fn try_writing(place: &Path, kind: &Kind) -> Result<()> {
    let (is_new, mut held) = (!place.exists(), vec![]);
    let opened = regular::open_with(place, OpenOptions::new().read(true).append(true).create(true));
    let tried = opened.and_then(|file| {
        file.take(LONGEST_TEXT).read_to_end(&mut held)?;
        if is_new { fs::remove_file(place) } else { Ok(()) }
    });
    tried.map_err(|error| unwritable(place, &error))?;
    let held = String::from_utf8_lossy(&held);
    if held.is_empty() || (held.starts_with(kind.begin) && held.contains(kind.part)) {
        return Ok(());
    }
    let refused =
        format!("{} is there already, and it is no {} of agrpo", place.display(), kind.name);
    Err(Failure::usage(refused).hint("move it away, or name another file"))
}

pub(super) fn write(place: &Path, kind: &Kind, bytes: impl AsRef<[u8]>) -> Result<()> {
    try_writing(place, kind)?;
    regular::write(place, bytes.as_ref()).map_err(|error| unwritable(place, &error))
}

/// Writes a file, and reports it; after the answer, so that an error loses no result.
pub(super) fn write_and_report(place: &Path, kind: &Kind, text: &str) -> Result<()> {
    write(place, kind, text)?;
    output::talk(format!("wrote {}", place.display()));
    Ok(())
}

/// Checks before hours of work that the chart of `--plot` can be written.
pub(super) fn try_chart(place: Option<&Path>) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let shown = place.display();
    if place.extension().is_none_or(|extension| extension != "svg") {
        return Err(Failure::usage(format!("--plot {shown}: expected a name that ends in .svg")));
    }
    try_writing(place, &SVG)
}
