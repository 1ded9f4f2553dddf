//! Bytes by name, in a folder, a bucket or memory: the only place that names object_store.
//!
//! Knows no digests' meaning, no records and no runs.

mod action;
mod address;
mod answer;
mod client;
mod errors;
mod listing;
mod local;
mod lock;
mod open;
mod operations;
mod probe;
mod rereads;
mod transfer;
mod trust;

pub(crate) use object_store::ObjectStore;

pub(crate) use action::{Action, Operation};
pub use address::Address;
pub use client::{Limits, Objects};
pub(crate) use local::staged;
pub use local::{Entry, is_leftover};
pub use lock::Lock;
pub(crate) use open::{open, over, read_s3};
pub(crate) use rereads::READS;

#[cfg(test)]
pub(crate) use errors::Backend;
#[cfg(test)]
pub(crate) mod tests;
