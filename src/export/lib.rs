//! What other programs read of runs: metrics as rows and as TensorBoard's events, how a model is cut into
//! shards, and what its card says.
//!
//! Bytes follow from what was recorded alone: the same run gives the same files, wherever and whenever they
//! are written. Opens nothing and sees no tensor; nothing is guessed where a record is missing.

pub mod card;
pub mod columns;
pub mod history;
pub mod rows;
pub mod shards;
pub mod tensorboard;
