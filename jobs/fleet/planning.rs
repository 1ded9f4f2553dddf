//! What comes next in a run: the walk over its plan, its progress, and notes that shorten the walk.

pub(crate) mod frontier;
pub(crate) mod policy_notes;
pub(crate) mod progress;
pub(crate) mod steps;
pub(crate) mod walk;

pub use policy_notes::evaluations_so_far;
pub use walk::{Walk, own_stages};
