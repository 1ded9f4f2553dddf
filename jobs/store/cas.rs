//! Blobs by content: stored under the SHA-256 of their bytes, and checked against it whenever they are read.
//!
//! What a process and its host remember of blobs is never the truth: only the store is.

mod blobs;
mod cached;
mod checked;
mod claim;
mod files;
mod folders;
mod host;
mod import;
mod integrity;
mod memory;
mod streamed;
mod write;

pub use blobs::Cas;
pub use folders::records_of;
pub use import::Imported;
pub use integrity::Condition;

#[cfg(test)]
mod spoiled;
