//! Named places at which the fault suite delays a worker, stops it or makes it die (docs/faults.md).
//!
//! A release does not pass them: without `debug_assertions` a place does nothing and costs nothing. The program says
//! which place does what; this file reads no environment.

use std::io;

use rustix::process::{Signal, getpid, kill_process};

/// Called with every place whose action is taken, before it is.
static NOTED: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// From here on `note` is called with every place whose `return` is taken, before it is.
pub fn note_by(note: fn(&str)) {
    // Once a process.
    let _first = NOTED.set(note);
}

fn taken(place: &str) {
    NOTED.get().into_iter().for_each(|note| note(place));
}

/// Passes a place. Besides the actions of the crate `fail`, `return(kill)` is a SIGKILL, `return(stop)` a SIGSTOP, and
/// any other `return` an abort.
pub fn fail_point(place: &str) {
    if cfg!(debug_assertions) {
        fail::fail_point!(place, |way| {
            taken(place);
            let sent = match way.as_deref() {
                Some("kill") => kill_process(getpid(), Signal::KILL),
                Some("stop") => kill_process(getpid(), Signal::STOP),
                _ => std::process::abort(),
            };
            tracing::debug!(place, ?sent, "went on");
        });
    }
}

/// Passes a place at which the disk may be full: `return` says that it is.
pub fn write(place: &str) -> io::Result<()> {
    if cfg!(debug_assertions) {
        fail::fail_point!(place, |_| {
            taken(place);
            Err(io::ErrorKind::StorageFull.into())
        });
    }
    Ok(())
}
