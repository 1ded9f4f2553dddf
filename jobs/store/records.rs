//! Records: every JSON object of the store, by name. What was finished, what a run is, what is kept about it.

mod control;
mod inspect;
mod manifests;
mod repairs;
mod resolve;
mod retention;
mod run_metadata;
mod runs;
mod sealed;
mod specs;

pub use control::{Control, Hold};
pub use repairs::{Repair, Why};
pub use retention::DroppedOutputs;
pub use run_metadata::PolicyNote;
pub use runs::Failure;
pub(crate) use runs::run_name;
pub use sealed::Unreadable;
