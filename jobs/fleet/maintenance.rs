//! What is done about results after they are stored: kept or deleted, checked, computed again, replayed.

pub mod gc;
mod producers;
pub(crate) mod reachability;
pub(crate) mod recompute;
pub(crate) mod repair;
pub mod replay;
pub(crate) mod retention;
pub mod verify;

#[cfg(test)]
mod tests;
