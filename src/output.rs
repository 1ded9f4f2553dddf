//! The only place that prints: answers on stdout, talk on stderr. Whatever a library logs or says, talk shows no
//! address with a password.
//!
//! A reader that goes away (`agrpo show HASH | head`) has what it wanted: the program ends quietly
//! with code 0. Talk that nobody reads is dropped. A progress bar steps aside for every line.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use agrpo_jobs::redact;
use indicatif::{DecimalBytes, MultiProgress};
use serde::Serialize;

use crate::exit::{Exit, Failure};

static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// The bars of this process; lines of talk are written around them.
pub(crate) fn bars() -> &'static MultiProgress {
    BARS.get_or_init(MultiProgress::new)
}

/// Whether a person watches stderr.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Writes bytes to stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(Exit::Done as u8))
        }
        Err(error) => {
            Err(Failure::new(Exit::Unexpected, format!("cannot write to standard output: {error}")))
        }
    }
}

/// One answer on stdout, with a line break at its end.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
}

/// One JSON value on stdout, indented for people.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(json_text(value)?)
}

/// A JSON value, indented for people.
pub(crate) fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(not_json)
}

/// One JSON value on one line of stdout, for streams of rows.
pub(crate) fn json_row(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).map_err(not_json)?)
}

/// One line of talk on stderr, whose addresses show no secret.
pub(crate) fn talk(text: impl AsRef<str>) {
    write_talk(format!("{}\n", redact::text(text.as_ref())).as_bytes());
}

/// A writer for log lines, which are talk.
pub(crate) struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_talk(redact::text(&String::from_utf8_lossy(bytes)).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_talk(bytes: &[u8]) {
    let write = || {
        // Nobody is left to be told that stderr is closed.
        io::stderr().lock().write_all(bytes).unwrap_or_default();
    };
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

fn not_json(error: serde_json::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("cannot write the answer as JSON: {error}"))
}

/// Columns of text, each as wide as its widest cell, two spaces apart. The last one is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A number of bytes for people: `9.60 kB`.
pub(crate) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["run", "state"]), row(["a", "done"])]), "run  state\na    done");
    }
}
