//! Named places at which the fault suite delays a worker, stops it or makes it die (docs/faults.md).
//!
//! A release does not pass them: without `debug_assertions` a place does nothing and costs nothing. The program says
//! which place does what; this file reads no environment.

use std::io;

/// Called with every place whose action is taken, before it is.
#[cfg(debug_assertions)]
static NOTED: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// From here on `note` is called with every place whose `return` is taken, before it is.
#[cfg(debug_assertions)]
pub fn note_by(note: fn(&str)) {
    // Once a process.
    let _first = NOTED.set(note);
}

#[cfg(debug_assertions)]
fn taken(place: &str) {
    NOTED.get().into_iter().for_each(|note| note(place));
}

/// Passes a place. What may happen there besides the actions of the crate `fail`: `return(kill)` is a
/// SIGKILL, `return(stop)` a SIGSTOP, and any other `return` an abort.
#[cfg(debug_assertions)]
pub fn fail_point(place: &str) {
    use rustix::process::{Signal, getpid, kill_process};
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

/// Passes a place.
#[cfg(not(debug_assertions))]
pub fn fail_point(_place: &str) {}

/// Passes a place at which the disk may be full: `return` says that it is.
#[cfg(debug_assertions)]
pub fn write(place: &str) -> io::Result<()> {
    fail::fail_point!(place, |_| {
        taken(place);
        Err(io::ErrorKind::StorageFull.into())
    });
    Ok(())
}

/// Passes a place at which the disk may be full.
#[cfg(not(debug_assertions))]
pub fn write(_place: &str) -> io::Result<()> {
    Ok(())
}
