//! What a process and its host remember of a store. Never the truth: only the store is.

pub(crate) mod checked;
mod files;
mod host;
mod memory;
mod news;
mod references;
mod specs;

pub(crate) use files::{Fetched, Known, StreamedBlobs};
pub(crate) use host::{HostCache, SMALLEST};
pub(crate) use memory::BlobCache;
pub(crate) use news::News;
pub use references::References;
pub(crate) use specs::SpecCache;

#[cfg(test)]
pub(crate) mod spoiled;
