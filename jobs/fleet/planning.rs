//! What comes next in a run: one walk over its plan, where it stands, and notes that shorten the way there.

pub(crate) mod frontier;
pub(crate) mod policy_notes;
pub(crate) mod progress;
pub(crate) mod steps;
pub(crate) mod walk;

pub use policy_notes::evaluation_at;
pub use walk::{Walk, own_stages};
