//! The store: everything that was ever computed, by name. The truth that queue and workers serve.
//!
//! ```text
//! cas/<sha256>                             blobs, checked on every read
//! stages/<stage digest>                    manifests, written last and created once
//! specs/<stage digest>                     what a hint stands for, written before it is queued
//! runs/<run id>/run.json                   the run's configuration
//! runs/<run id>/versions.json              the versions of stages that compute it
//! runs/<run id>/stages/<key>.<digest>      an index for resume and status; losing it costs time only
//! runs/<run id>/policies/<key>             the same for what makes policies, found without a listing
//! runs/<run id>/failures/<stage digest>    why a stage failed for good
//! runs/<run id>/control.json               who paused or cancelled the run, if anybody did
//! runs/<run id>/retention.json             what is kept of its results
//! runs/<run id>/dropped/<stage digest>     outputs that the run no longer holds
//! runs/<run id>/rewound/<stage>.<unix ms>  a stage computed again for a result that was lost
//! aside/                                   damaged objects that were taken out of the way
//! ```
//!
//! A blob that is stored again is written again, or made young where it is large: its bytes are the same
//! for every writer, so that a gc never takes what a writer has just found.
//!
//! `objects/` is the only place that names object_store. Nothing here computes a stage, knows Redis or decides what is
//! next; it reads no environment and prints nothing.

mod blocking;
mod cache;
mod cas;
mod clock;
mod error;
mod fetch;
mod inventory;
mod objects;
mod reads;
mod records;
mod store;
mod versions;

pub mod failpoints;
pub mod metrics;
pub mod redact;
pub mod regular;
pub mod retry;
pub mod span;

pub use cache::References;
pub use cas::{Condition, Imported, records_of};
pub use clock::Clock;
pub use error::{JobsError, Remedy};
pub use fetch::fetch;
pub use inventory::{FOLDERS, OF_RUNS};
pub use objects::{Address, Entry, Limits, is_leftover};
pub use records::{Control, DroppedOutputs, Failure, Hold, PolicyNote, Repair, Unreadable, Why};
pub use store::Store;
pub use versions::Versions;

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
