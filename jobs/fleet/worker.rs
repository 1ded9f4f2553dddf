//! A worker of the fleet: takes a hint, asks the store, computes, publishes, offers what follows.
//!
//! Many workers share a store and a Redis. Every hint may come twice or never; what is done is
//! decided by the store alone, so a worker may die at any moment and another one goes on. Services may
//! be away for minutes; a worker that lost a lease, or Redis for longer, ends with an error and leaves
//! the restart to its supervisor. It computes one stage at a time, stores the one before meanwhile, and
//! never chooses results.

mod claim;
mod consumer;
mod coordinator;
mod enqueue;
mod options;
mod reconcile;
mod runs;
mod scheduler;
mod serve;
mod shared;

pub use enqueue::{Enqueued, enqueue};
pub(crate) use enqueue::{offer_run, take_up};
pub use options::WorkerOptions;
pub use serve::serve;

#[cfg(test)]
mod tests;
