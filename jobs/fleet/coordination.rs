//! What workers share through Redis: a queue of hints, leases, heartbeats, counts of attempts, a registry of workers.
//!
//! The store is the truth: if Redis is emptied, it costs only time.

pub(crate) mod attempts;
pub(crate) mod consumer;
pub(crate) mod heartbeat;
pub(crate) mod keys;
pub(crate) mod leases;
pub(crate) mod liveness;
pub(crate) mod queue;
pub(crate) mod redis;
pub(crate) mod registry;
pub(crate) mod runs;

pub use liveness::Liveness;
pub use redis::{Access, Fleet};
pub use registry::{StageInProgress, WorkerInfo, workers};
