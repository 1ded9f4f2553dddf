//! A worker of the fleet: takes a hint, asks the store, computes, publishes, offers what follows.
//!
//! Many workers share a store and a Redis. Every hint may come twice or never; what is done is
//! decided by the store alone, so a worker may die at any moment and another one goes on. Services may
//! be away for minutes; a worker that lost a lease, or Redis for longer, ends with an error and leaves
//! the restart to its supervisor. It computes one stage at a time, stores the one before meanwhile, and
//! never chooses results.

mod attempt;
mod consumer;
mod enqueue;
mod events;
mod executor;
mod handle;
mod options;
mod publish;
mod reconcile;
mod runs;
mod serve;
mod shared;

pub(crate) use enqueue::offer;
pub use enqueue::{Enqueued, enqueue};
pub use events::WorkerEvent;
pub use options::{LogTail, WorkerOptions};
pub(crate) use runs::View;
pub use serve::serve;

#[cfg(test)]
mod tests;
