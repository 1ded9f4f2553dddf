//! When and by whom stages are computed: one process, or a fleet of workers that meet in Redis.
//!
//! This crate never sees a tensor: what a stage computes is handed in as a function. It prints
//! nothing, reads no environment and asks no clock but the one it is given.

mod coordination;
mod coordinator;
mod events;
mod executor;
mod maintenance;
mod planning;
mod preflight;
mod span;
mod stage;
mod worker;

pub mod batch;
pub mod control;
pub mod fuzz;
pub mod local;
pub mod metrics;
pub mod status;

pub use coordination::{Access, Fleet, InHand, Liveness, WorkerInfo, workers};
pub use coordinator::LogTail;
pub use events::Event;
pub use maintenance::{gc, replay, verify};
pub use planning::{Walk, evaluation_at, own_stages};
pub use preflight::{Finding, Skew, clock_skew, inspect, require, store_skew};
pub use worker::{Enqueued, WorkerOptions, enqueue, serve};

use agrpo_store::Result;

#[cfg(test)]
#[expect(dead_code, reason = "the store's tests use the rest")]
#[path = "../../tests/support/fake_s3.rs"]
mod fake_s3;
#[cfg(test)]
#[path = "../../tests/support/redis.rs"]
mod redis_server;
#[cfg(test)]
#[expect(dead_code, reason = "the fault suite kills it")]
#[path = "../../tests/support/s3.rs"]
mod s3_server;
#[cfg(test)]
mod testing;
