//! Runs for people: run histories as data, charts, pages, and trajectories step by step.
//!
//! Reads the store and changes nothing in it. Sees no tensor, prints nothing, serves listeners that the caller
//! opened, and reads neither clock nor environment.

pub mod figures;
pub mod guard;
pub mod history;
pub mod listener;
pub mod live;
pub mod page;
pub mod pages;
pub mod player;
pub mod plot;
pub mod report;
pub mod samples;
pub mod sections;
pub mod serve;
pub mod statistics;
pub mod text;
pub mod timeline;
pub mod trajectory;
pub mod watch;

pub use agrpo_store::JobsError;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
