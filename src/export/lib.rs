//! Runs for other programs: metrics as rows and as TensorBoard's events, the shards of a model, and its card.
//!
//! Bytes are a function of the records alone: the same run gives the same files, wherever and whenever they
//! are written. Opens no file and sees no tensor; nothing is guessed where a record is missing.

pub mod card;
mod columns;
pub mod history;
pub mod rows;
pub mod shards;
pub mod tensorboard;
