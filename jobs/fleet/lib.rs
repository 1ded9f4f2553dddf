//! Schedules and runs stages, in one process or on a fleet of workers that share a Redis.
//!
//! Never sees a tensor: the function that computes a stage is passed in. Prints nothing, reads no environment, and uses
//! only the clock that it is given.

mod coordination;
mod coordinator;
mod events;
mod executor;
mod maintenance;
mod planning;
mod preflight;
mod stage;
mod worker;

pub mod batch;
pub mod control;
pub mod fuzz;
pub mod local;
pub mod metrics;
pub mod status;

pub use coordination::{Access, Fleet, Liveness, StageInProgress, WorkerInfo, workers};
pub use coordinator::LogTail;
pub use events::Event;
pub use maintenance::{gc, replay, verify};
pub use planning::{Walk, evaluations_so_far, own_stages};
pub use preflight::{Finding, Skew, clock_skew, inspect, require, store_skew};
pub use worker::{Enqueued, WorkerOptions, enqueue, serve};

use agrpo_store::Result;

#[cfg(test)]
mod testing;
