//! What the fault suite asks of a worker: fail points that are armed, and a ledger of all it begins.
//!
//! Compiled with the cargo feature `failpoints` alone. `FAILPOINTS` is written as the crate `fail` has
//! it, `AGRPO_FAULT_LEDGER` names a file that takes a line before and after each stage: it outlives a
//! SIGKILL, as no log in memory does. Neither changes a result.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agrpo_jobs::failpoints::reach;
use agrpo_spec::{ExecuteFn, StageSpec};
use rustix::time::{ClockId, clock_gettime};

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// Arms the fail points of the environment.
pub(crate) fn arm(settings: &Settings) -> Result<(), Failure> {
    let points = settings.fail_points().unwrap_or_default();
    for point in points.split(';').filter(|point| !point.is_empty()) {
        let (name, actions) = point
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("FAILPOINTS: {point} is not NAME=ACTIONS")))?;
        fail::cfg(name.trim(), actions)
            .map_err(|why| Failure::usage(format!("FAILPOINTS: {point}: {why}")))?;
    }
    Ok(())
}

/// What computes stages, with a place in it for each stage, each kind, and all: `stage::in-compute`,
/// `stage::in-compute::rollout`, `stage::in-compute::<digest>`.
pub(crate) fn witness(execute: ExecuteFn, settings: &Settings) -> Result<ExecuteFn, Failure> {
    let ledger = settings.fault_ledger().map(PathBuf::from);
    if let Some(path) = &ledger {
        note(path, "open", None)
            .map_err(|why| Failure::new(Exit::Unavailable, format!("{}: {why}", path.display())))?;
    }
    Ok(Arc::new(move |spec, inputs| {
        let note = |what| ledger.as_deref().map_or(Ok(()), |path| note(path, what, Some(spec)));
        note("begin").expect("the ledger that was opened takes a line");
        reach("stage::in-compute");
        reach(&format!("stage::in-compute::{}", spec.kind()));
        reach(&format!("stage::in-compute::{}", spec.digest()));
        let outputs = execute(spec, inputs);
        note("end").expect("the ledger that was opened takes a line");
        outputs
    }))
}

/// A line: what, which stage, of what kind, by which process, when on this machine's monotonic clock.
fn note(path: &Path, what: &str, spec: Option<&StageSpec>) -> std::io::Result<()> {
    let now = clock_gettime(ClockId::Monotonic);
    let ms = now.tv_sec * 1000 + now.tv_nsec / 1_000_000;
    let pid = std::process::id();
    let line = match spec {
        Some(spec) => format!("{what} {} {} {pid} {ms}\n", spec.digest(), spec.kind()),
        None => format!("{what} - - {pid} {ms}\n"),
    };
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}
