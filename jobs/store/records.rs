//! Records: every JSON object of the store, by name: finished stages, runs, and what is noted about runs.

mod control;
mod failures;
mod index;
mod inspect;
mod json;
mod manifests;
mod policies;
mod references;
mod repairs;
mod resolve;
mod retention;
mod runs;
mod specs;
mod versions;

pub use control::{Control, Hold};
pub use failures::Failure;
pub use json::{Records, Unreadable};
pub use policies::PolicyNote;
pub use references::References;
pub use repairs::{Repair, Why};
pub use retention::DroppedOutputs;
pub use versions::Versions;
