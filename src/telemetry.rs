//! Log lines on stderr, and one line for a defect.
//!
//! `RUST_LOG` decides what is logged; without it warnings, and for workers every stage. A panic never
//! shows a raw backtrace: on the main thread it ends the program with code 1, elsewhere its thread's
//! owner reports it and the log says where it happened.

use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::cli::LogFormat;
use crate::exit::Failure;
use crate::output::{self, Talk};
use crate::settings::Settings;

/// Starts logging. `level` is the least severe level of agrpo's own lines where `RUST_LOG` is unset.
pub(crate) fn start(settings: &Settings, format: LogFormat, level: &str) -> Result<(), Failure> {
    let default = format!("warn,agrpo={level},agrpo_jobs={level},agrpo_stages={level}");
    let directives = settings.log_filter().unwrap_or(&default);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("RUST_LOG={directives} is not a log filter: {error}"))
            .hint("a level is enough, as in RUST_LOG=info")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_ansi(output::is_watched() && !settings.no_color())
        .with_writer(|| Talk);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
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
