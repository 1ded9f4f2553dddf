//! The only file that prints: answers on stdout, messages for people (talk) on stderr; and how numbers are shown. Talk
//! never shows an address with a password, even where a library logs one. When a reader closes the pipe (`agrpo show
//! HASH | head`), the program ends with code 0 and prints nothing. Errors of stderr are ignored. A progress bar is
//! hidden while a line is written.

use std::io::{self, IsTerminal, Write};
use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use agrpo_fleet::gc::Totals;
use agrpo_spec::{OutputRecord, Run};
use agrpo_store::redact;
pub(crate) use agrpo_view::text::{count, name_of, percent, policy, state, table as columns};
use indicatif::{DecimalBytes, MultiProgress};
use serde::Serialize;

use crate::exit::{Exit, Failure, Result, cannot};

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
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// The outcome of writing to stdout: a closed pipe ends the program, a full disk is an error.
pub(crate) fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(Exit::Done as u8))
        }
        outcome => outcome.map_err(|error| {
            Failure::unavailable(format!("cannot write to standard output: {error}"))
        }),
    }
}

/// One answer on stdout, with a line break at its end.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
}

/// One JSON value on stdout, indented for people.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(json_text(value)?)
}

/// A command's answer, as JSON or as text for people.
pub(crate) fn answer(
    as_json: bool,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<Exit> {
    if as_json {
        json(value)?;
    } else {
        line(text())?;
    }
    Ok(Exit::Done)
}

/// A JSON value, indented for people.
pub(crate) fn json_text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(cannot("write the answer as JSON"))
}

/// One line of talk on stderr, whose addresses show no secret.
pub(crate) fn talk(text: impl AsRef<str>) {
    write_talk(&redact::text(&format!("{}\n", text.as_ref())));
}

/// A writer for log lines, which are talk; `T` receives them without secrets.
pub(crate) struct Redacted<T: FnMut(&str)>(pub(crate) T);

impl<T: FnMut(&str)> Write for Redacted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(&redact::text(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes text to stderr as it is, around the bars.
pub(crate) fn write_talk(text: &str) {
    let write = || {
        // A closed stderr leaves no way to report it.
        io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
    };
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// A table below the names of its columns.
pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows = rows.into_iter().map(Vec::from);
    columns(&std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

/// Lines of a name and a value, the values in one column.
pub(crate) fn fields(rows: &[(impl AsRef<str>, String)]) -> String {
    let rows = rows.iter().map(|(name, value)| vec![name.as_ref().to_owned(), value.clone()]);
    columns(&rows.collect::<Vec<_>>())
}

/// Files of a folder: digest, name and size.
pub(crate) fn files(files: &BTreeMap<String, OutputRecord>) -> String {
    let row = |(name, entry): (&String, &OutputRecord)| {
        vec![entry.digest.to_string(), name.clone(), size(entry.size)]
    };
    columns(&files.iter().map(row).collect::<Vec<_>>())
}

/// Two values, `BEFORE -> AFTER`, or the one that is known.
pub(crate) fn change(before: Option<String>, after: Option<String>) -> Option<String> {
    match (before, after) {
        (Some(before), Some(after)) => Some(format!("{before} -> {after}")),
        (before, after) => before.or(after),
    }
}

/// `run 3f2a91cc0d12 (countdown)`.
pub(crate) fn run(run: &Run) -> String {
    format!("run {} ({})", run.id().short(), run.config().name)
}

/// `3 objects, 1.2 kB`.
pub(crate) fn objects(totals: Totals) -> String {
    format!("{}, {}", count(totals.objects, "object"), size(totals.bytes))
}

/// A duration in the two units that matter: `3h12m`, `4m05s`, `12s`.
pub(crate) fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// An accuracy with its counts: `43.0% (110 of 256)`; a share of parts of answers has none.
pub(crate) fn accuracy(share: f64, problems: u32) -> String {
    let count = share * f64::from(problems);
    match (count - count.round()).abs() > 1e-6 {
        true => percent(share),
        false => format!("{} ({count:.0} of {problems})", percent(share)),
    }
}

/// A number of bytes for people: `9.60 kB`.
pub(crate) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_shares_are_short() {
        assert_eq!(short_duration(Duration::from_secs(12)), "12s");
        assert_eq!(short_duration(Duration::from_secs(245)), "4m05s");
        assert_eq!(short_duration(Duration::from_secs(11_520)), "3h12m");
        assert_eq!(accuracy(0.4296875, 256), "43.0% (110 of 256)");
    }
}
