//! The store: everything that was ever computed, by name. Queues, leases and caches can be rebuilt from it.
//!
//! `objects/` is bytes by name, and the only place that names object_store; `cas/` is blobs by content, checked and
//! cached; `records/` is the JSON records of stages and runs; `paths.rs` builds every object's name (listed in
//! ARCHITECTURE.md). Nothing here computes a stage, knows Redis or schedules; it reads no environment and prints
//! nothing.

mod cas;
mod error;
mod fetch;
mod objects;
mod records;
mod store;

pub mod failpoints;
pub mod metrics;
pub mod paths;
pub mod redact;
pub mod regular;
pub mod retry;
pub mod span;

pub use cas::{Cas, Condition, Imported, records_of};
pub use error::{JobsError, Remedy, Result, readable};
pub use fetch::fetch;
pub use objects::{Address, Entry, Limits, Lock, Objects, is_leftover};
pub use paths::{FOLDERS, LOCKS, OF_RUNS};
pub use records::{
    Control, DroppedOutputs, Failure, Hold, PolicyNote, Records, References, Repair, Unreadable,
    Versions, Why,
};
pub use retry::RetryPolicy;
pub use span::locked;
pub use store::Store;

/// Returns the milliseconds since 1970. This crate never reads the system's clock: `src/` and tests pass one in.
pub type Clock = std::sync::Arc<dyn Fn() -> u64 + Send + Sync>;

#[cfg(test)]
#[path = "../../tests/support/fake_s3.rs"]
mod fake_s3;
#[cfg(test)]
#[path = "../../tests/support/flaky_store.rs"]
mod flaky_store;
#[cfg(test)]
#[expect(dead_code, reason = "the fault suite kills it")]
#[path = "../../tests/support/s3.rs"]
mod s3_server;
#[cfg(test)]
mod testing;
