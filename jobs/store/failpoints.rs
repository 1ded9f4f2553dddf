//! Named places at which the fault suite delays a worker, stops it or makes it die (docs/faults.md).
//!
//! Without `debug_assertions`, as in a release, a place does nothing and costs nothing. The program configures the
//! places; this file reads no environment.

use std::io;

use rustix::process::{Signal, getpid, kill_process};

/// Called with every place whose action is about to run.
static NOTED: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// Sets the function that is called with every place whose `return` is about to run. The first call counts.
pub fn note_by(note: fn(&str)) {
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

/// Passes a place at which the disk may be full: `return` reports a full disk.
pub fn write(place: &str) -> io::Result<()> {
    if cfg!(debug_assertions) {
        fail::fail_point!(place, |_| {
            taken(place);
            Err(io::ErrorKind::StorageFull.into())
        });
    }
    Ok(())
}
