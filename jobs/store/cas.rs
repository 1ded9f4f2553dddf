//! Blobs by content: stored under the SHA-256 of their bytes, and checked against it whenever they are read.
//!
//! Caches of a process and its host never decide what exists: only the store does.

mod blobs;
mod cached;
mod checked;
mod claim;
mod download;
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
