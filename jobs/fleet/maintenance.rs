//! What is done with stored results: retained or deleted, verified, repaired, replayed.

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
