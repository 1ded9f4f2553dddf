//! Named places at which the fault suite delays a worker, stops it or makes it die (docs/faults.md).
//!
//! Without the cargo feature `failpoints`, which no usual build has, passing a place does nothing and
//! costs nothing. Which place does what is told by whoever owns the process: this file reads no
//! environment.

use std::io;

/// Told of every place whose action is taken, before it is.
#[cfg(feature = "failpoints")]
static NOTED: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// From here on `note` is told of every place whose `return` is taken, before it is.
#[cfg(feature = "failpoints")]
pub fn note_by(note: fn(&str)) {
    // Once a process.
    let _told = NOTED.set(note);
}

#[cfg(feature = "failpoints")]
fn taken(place: &str) {
    NOTED.get().into_iter().for_each(|note| note(place));
}

/// Passes a place. What may happen there besides the actions of the crate `fail`: `return(kill)` is a
/// SIGKILL, `return(stop)` a SIGSTOP, and any other `return` an abort.
#[cfg(feature = "failpoints")]
pub fn reach(place: &str) {
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
#[cfg(not(feature = "failpoints"))]
pub fn reach(_place: &str) {}

/// Passes a place at which the disk may be full: `return` says that it is.
#[cfg(feature = "failpoints")]
pub(crate) fn write(place: &str) -> io::Result<()> {
    fail::fail_point!(place, |_| {
        taken(place);
        Err(io::ErrorKind::StorageFull.into())
    });
    Ok(())
}

/// Passes a place at which the disk may be full.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn write(_place: &str) -> io::Result<()> {
    Ok(())
}
