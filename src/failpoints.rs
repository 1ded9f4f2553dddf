//! Arms fail points for the fault suite, and keeps a ledger of the stages that a worker begins and ends. Compiled with
//! `debug_assertions` alone. `FAILPOINTS` has the syntax of the crate `fail`. `AGRPO_FAULT_LEDGER` names a file that
//! receives a line before and after each stage, and before the action of a fail point: unlike a log in memory, it
//! survives a SIGKILL. Neither changes a result.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use agrpo_spec::ExecuteFn;
use agrpo_store::failpoints::{fail_point, note_by};
use rustix::time::{ClockId, clock_gettime};

use crate::exit::Failure;
use crate::settings::{FAIL_POINTS, FAULT_LEDGER, Settings};

/// The ledger, if there is one.
static LEDGER: OnceLock<PathBuf> = OnceLock::new();

/// Arms the fail points of the environment.
pub(crate) fn arm(settings: &Settings) -> Result<(), Failure> {
    if let Some(path) = settings.variable(FAULT_LEDGER) {
        // Set once: a process reads its environment once.
        let _path = LEDGER.get_or_init(|| path.into());
        note_by(|place| note("point", place, "-").expect("the ledger takes a line"));
    }
    let points = settings.variable(FAIL_POINTS).unwrap_or_default();
    for point in points.split(';').filter(|point| !point.is_empty()) {
        let (name, actions) = point
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("FAILPOINTS: {point} is not NAME=ACTIONS")))?;
        fail::cfg(name.trim(), actions)
            .map_err(|why| Failure::usage(format!("FAILPOINTS: {point}: {why}")))?;
    }
    Ok(())
}

/// Adds a fail point for each stage, for each kind and for all of them: `stage::in-compute`,
/// `stage::in-compute::rollout`, `stage::in-compute::<digest>`.
pub(crate) fn witness(execute: ExecuteFn, settings: &Settings) -> Result<ExecuteFn, Failure> {
    let ledger = settings.variable(FAULT_LEDGER).unwrap_or_default().to_owned();
    note("open", "-", "-").map_err(|why| Failure::unavailable(format!("{ledger}: {why}")))?;
    Ok(Arc::new(move |spec, inputs| {
        let note = |what| note(what, &spec.digest().to_string(), &spec.kind().to_string());
        note("begin").expect("the ledger that was opened takes a line");
        fail_point("stage::in-compute");
        fail_point(&format!("stage::in-compute::{}", spec.kind()));
        fail_point(&format!("stage::in-compute::{}", spec.digest()));
        let outputs = execute(spec, inputs);
        note("end").expect("the ledger that was opened takes a line");
        outputs
    }))
}

/// Writes a line: event, stage or fail point, kind, process, monotonic time. Does nothing without a ledger.
fn note(what: &str, which: &str, kind: &str) -> std::io::Result<()> {
    let Some(path) = LEDGER.get() else { return Ok(()) };
    let now = clock_gettime(ClockId::Monotonic);
    let ms = now.tv_sec * 1000 + now.tv_nsec / 1_000_000;
    let line = format!("{what} {which} {kind} {} {ms}\n", std::process::id());
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}
