//! Experiments around runs: what `agrpo tune`, `agrpo compare` and `agrpo bench-gpu` compute and draw.
//!
//! Prints nothing, opens no file and no store, and reads neither environment nor clock: texts, manifests and
//! clocks are arguments. Nothing here is a stage, and no result of a run depends on it.

use agrpo_spec::StageError;

pub mod compare;
pub mod gpu_bench;
pub mod tune;

/// A result, and the seconds that it took by the caller's clock.
fn timed<T>(
    clock: &dyn Fn() -> f64,
    work: impl FnOnce() -> Result<T, StageError>,
) -> Result<(T, f64), StageError> {
    let start = clock();
    let result = work()?;
    Ok((result, clock() - start))
}
