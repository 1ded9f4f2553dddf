//! Blobs by content: stored under the SHA-256 of their bytes, and checked against it whenever they are read.

mod blobs;
mod claim;
mod folders;
mod host;
mod import;
mod integrity;
mod streamed;

pub(crate) use blobs::blob_name;
pub use folders::records_of;
pub use import::Imported;
pub use integrity::Condition;
