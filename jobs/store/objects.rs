//! Bytes by name, in a folder, a bucket or memory: the only place that names object_store.
//!
//! Knows no digests' meaning, no records and no runs.

mod address;
mod answer;
mod backend;
mod entry;
mod errors;
mod files;
mod listing;
pub(crate) mod local;
mod open;
mod operations;
mod probe;
mod reconnect;
mod transfer;
mod trust;

pub(crate) use object_store::ObjectStore;

pub use address::Address;
pub(crate) use backend::Backend;
pub use backend::Limits;
pub use entry::Entry;
pub use files::is_leftover;
pub(crate) use files::staged;
pub(crate) use open::{open, over, read_s3};
pub(crate) use trust::RetryPolicy;

#[cfg(test)]
pub(crate) use errors::Place;
#[cfg(test)]
pub(crate) mod tests;
