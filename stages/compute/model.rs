//! Policies: LLaDA's architecture, its weights, and its folder in Hugging Face layout.
//!
//! Shape letters: B sequences, L tokens of a sequence, Q queried positions, D width of the residual
//! stream, H heads, E size of a head (D = H * E), M width inside the SwiGLU, V vocabulary.

mod batches;
mod checkpoint;
mod config;
mod linear;
mod lora;
mod merged_weights;
mod mlp;
mod names;
mod placement;
mod policy;
mod rows;
mod synthetic_weights;
mod weights;

pub use batches::{Agreement, check_batches};
pub(crate) use checkpoint::check_headers;
pub use checkpoint::check_weights;
pub use config::ModelConfig;
pub use lora::{Adapter, check_adapter};
pub(crate) use lora::{base_files, is_in as has_adapter};
pub use merged_weights::{MergedWeights, Part};
pub use placement::Placement;
pub(crate) use policy::{KeyValues, Tape, Window, adapter_of, padding};
pub use policy::{PADDING, Policy, Queries};
pub use rows::{RowsReport, check_rows};

#[cfg(test)]
mod tests;
