//! Log lines on stderr, and one line for a panic. `RUST_LOG` decides what is logged; without it warnings are, and for
//! workers every stage. Lines that repeat are folded (`fold.rs`). A panic shows no backtrace: on the main thread it
//! ends the program with code 1, on another one the thread's owner reports it.

mod fold;
mod format;

use std::collections::VecDeque;
use std::panic::PanicHookInfo;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use agrpo_fleet::LogTail;
use agrpo_store::Clock;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::args::LogFormat;
use crate::exit::Failure;
use crate::machine;
use crate::output::{self, Redacted, write_talk};
use crate::settings::{LOG_FILTER, NO_COLOR, Settings};
use fold::Fold;

/// As many lines as a failure record shows.
const LINES: usize = 50;

static TAIL: LazyLock<Tail> = LazyLock::new(|| Tail::new(machine::clock()));
static FOLD: LazyLock<Fold> = LazyLock::new(|| Fold::new(machine::clock()));

/// Reports lines that were folded and not yet reported; for the end of the program.
pub(crate) fn end() {
    FOLD.end();
}

/// The last lines of this process.
pub(crate) fn log_tail() -> LogTail {
    Arc::new(|since| TAIL.read(since))
}

/// Starts logging. `level` is the least severe level of agrpo's own lines where `RUST_LOG` is unset.
pub(crate) fn start(settings: &Settings, format: LogFormat, level: &str) -> Result<(), Failure> {
    let default =
        format!("warn,agrpo={level},agrpo_store={level},agrpo_fleet={level},agrpo_compute={level}");
    let directives = settings.variable(LOG_FILTER).unwrap_or(&default);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("RUST_LOG={directives} is not a log filter: {error}"))
            .hint("a level is enough, as in RUST_LOG=info")
    })?;
    let shown = fmt::layer().with_writer(|| Redacted(write_talk));
    let shown = match format {
        LogFormat::Text => shown
            .with_target(false)
            .with_ansi(output::is_watched() && settings.variable(NO_COLOR).is_none())
            .fmt_fields(format::for_people())
            .boxed(),
        LogFormat::Json => shown.fmt_fields(JsonFields::new()).event_format(format::Flat).boxed(),
    };
    // Layers with the same formatter of fields would write the fields of a span twice.
    let tail = fmt::layer().with_target(false).with_ansi(false);
    let tail = tail.with_writer(|| Redacted(|text| TAIL.add(text)));
    let folded = format!("{}=warn", fold::TARGET).parse().expect("a directive");
    let filter = filter.add_directive(folded);
    registry().with(filter).with(FOLD.clone()).with(shown).with(tail).init();
    Ok(())
}

/// Replaces Rust's panic message.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() == Some("main") {
            output::talk(format!("error: internal error: {}; please report it", describe(panic)));
        } else {
            tracing::error!("a thread panicked: {}", describe(panic));
        }
    }));
}

/// Message and location on one line.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let words = agrpo_compute::without_stack(message).split_whitespace();
    let message = words.collect::<Vec<_>>().join(" ");
    match panic.location() {
        Some(at) => format!("{message} at {}:{}", at.file(), at.line()),
        None => message,
    }
}

/// The last log lines of this process, in memory, for failure records.
struct Tail {
    clock: Clock,
    lines: Mutex<VecDeque<(u64, String)>>,
}

impl Tail {
    fn new(clock: Clock) -> Self {
        Self { clock, lines: Mutex::default() }
    }

    /// The lines that were logged since a time.
    fn read(&self, since: u64) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|(at, _)| *at >= since).map(|(_, line)| line.clone()).collect()
    }

    /// Adds lines, and drops the oldest where there are too many.
    fn add(&self, text: &str) {
        let now = (self.clock)();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(text.lines().map(|line| (now, line.to_owned())));
        let surplus = lines.len().saturating_sub(LINES);
        lines.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_last_lines_since_a_moment_are_kept_and_no_more() {
        let time = Arc::new(AtomicU64::new(1));
        let now = Arc::clone(&time);
        let tail = Tail::new(Arc::new(move || now.load(Ordering::SeqCst)));
        for line in 0..60 {
            time.store(line, Ordering::SeqCst);
            tail.add(&format!("line {line}\n"));
        }
        let read = |since| tail.read(since);
        assert_eq!((read(0).len(), &*read(0)[0]), (LINES, "line 10"));
        assert_eq!(read(58), ["line 58", "line 59"]);
    }
}
