//! Experiments around runs: what `agrpo tune`, `agrpo compare` and `agrpo bench-gpu` compute and draw.
//!
//! Prints nothing, opens no file and no store, and reads neither environment nor clock: texts, manifests and
//! clocks are arguments. Nothing here is a stage, and no result of a run depends on it.

pub mod compare;
pub mod gpu_bench;
pub mod tune;
