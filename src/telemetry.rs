//! Log lines on stderr, and one line for a panic.
//!
//! `RUST_LOG` decides what is logged; without it warnings are, and for workers every stage. Lines that repeat are
//! folded (`fold.rs`). A panic never shows a raw backtrace: on the main thread it ends the program with code 1,
//! on another one the thread's owner reports it and the log says where it happened.

mod fold;
mod format;
mod tail;

use std::panic::PanicHookInfo;
use std::sync::LazyLock;

use agrpo_fleet::LogTail;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::args::LogFormat;
use crate::exit::Failure;
use crate::machine;
use crate::output::{self, Talk};
use crate::settings::Settings;
use fold::Fold;
use tail::Tail;

static TAIL: LazyLock<Tail> = LazyLock::new(|| Tail::new(machine::clock()));
static FOLD: LazyLock<Fold> = LazyLock::new(|| Fold::new(machine::clock()));

/// Reports lines that were folded and not yet reported; for the end of the program.
pub(crate) fn end() {
    FOLD.end();
}

/// The last lines of this process.
pub(crate) fn log_tail() -> LogTail {
    TAIL.reader()
}

/// Starts logging. `level` is the least severe level of agrpo's own lines where `RUST_LOG` is unset.
pub(crate) fn start(settings: &Settings, format: LogFormat, level: &str) -> Result<(), Failure> {
    let default =
        format!("warn,agrpo={level},agrpo_store={level},agrpo_fleet={level},agrpo_compute={level}");
    let directives = settings.log_filter().unwrap_or(&default);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("RUST_LOG={directives} is not a log filter: {error}"))
            .hint("a level is enough, as in RUST_LOG=info")
    })?;
    let shown = match format {
        LogFormat::Text => fmt::layer()
            .with_target(false)
            .with_ansi(output::is_watched() && !settings.no_color())
            .fmt_fields(format::for_people())
            .with_writer(|| Talk)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(format::Flat)
            .with_writer(|| Talk)
            .boxed(),
    };
    // Layers with the same formatter of fields would write the fields of a span twice.
    let tail = fmt::layer().with_target(false).with_ansi(false).with_writer(TAIL.clone());
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

/// Message and place on one line.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match panic.location() {
        Some(place) => format!("{message} at {}:{}", place.file(), place.line()),
        None => message,
    }
}
