//! Where and when stages run: the store, one process or a fleet of workers, and who looks at them.
//!
//! This crate never sees a tensor: what a stage computes is handed in as a function. It prints
//! nothing, reads no environment and asks no clock but the one it is given.

mod clock;
mod error;
mod fetch;
mod hand;
mod keep;
mod lease;
mod noted;
mod patience;
mod preflight;
mod progress;
mod pulse;
mod queue;
mod reach;
mod redis;
mod registry;
mod repair;
mod rewind;
mod span;
mod stage;
mod store;
mod versions;
mod vitals;
mod walk;
mod worker;

pub mod batch;
pub mod control;
pub mod embedded;
pub mod failpoints;
pub mod gc;
pub mod metrics;
pub mod outside;
pub mod redact;
pub mod regular;
pub mod replay;
pub mod status;
pub mod verify;

pub use self::redis::{Access, Fleet};
pub use clock::Clock;
pub use error::{JobsError, Remedy};
pub use fetch::fetch;
pub use noted::evaluation_at;
pub use preflight::{Finding, Skew, clock_skew, inspect, require, store_skew};
pub use progress::Progress;
pub use registry::{InHand, WorkerInfo, workers};
pub use store::{Address, Control, Failure, Hold, Imported, Rewound, Store, Unreadable, Why};
pub use versions::Versions;
pub use vitals::Vitals;
pub use walk::{Walk, own_stages};
pub use worker::{Enqueued, LogTail, WorkerEvent, WorkerOptions, enqueue, serve};

#[cfg(test)]
#[path = "../tests/support/fake_s3.rs"]
mod fake_s3;
#[cfg(test)]
#[path = "../tests/support/redis.rs"]
mod redis_server;
#[cfg(test)]
#[cfg_attr(feature = "failpoints", expect(dead_code, reason = "the fault suite kills it"))]
#[path = "../tests/support/s3.rs"]
mod s3_server;
#[cfg(test)]
mod testing;
