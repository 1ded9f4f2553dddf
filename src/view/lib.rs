//! What people see of runs: their story as data, charts, pages, and trajectories step by step.
//!
//! Reads the store and changes nothing in it. Sees no tensor, prints nothing, listens where it is told to, and
//! asks neither clock nor environment.

mod error;
pub mod figures;
pub mod guard;
pub mod lineage;
pub mod listener;
pub mod live;
pub mod page;
pub mod pages;
pub mod play;
pub mod plot;
pub mod png;
pub mod report;
pub mod samples;
pub mod sections;
pub mod serve;
pub mod statistics;
pub mod story;
pub mod timeline;
pub mod trajectory;
pub mod watch;

pub use error::ViewError;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
