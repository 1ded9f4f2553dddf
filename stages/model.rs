//! Policies: LLaDA's architecture, its weights, and its folder in Hugging Face layout.
//!
//! Shape letters: B sequences, L tokens of a sequence, Q queried positions, D width of the residual
//! stream, H heads, E size of a head (D = H * E), M width inside the SwiGLU, V vocabulary.

mod checkpoint;
mod config;
mod linear;
mod llada;
mod lora;
mod pattern;
mod placement;
mod rows;
mod weights;
mod whole;

pub use checkpoint::{check_folder, check_weights};
pub use config::ModelConfig;
pub(crate) use llada::adapter_of;
pub use llada::{KeyValues, PADDING, Policy, Queries, Tape, Window};
pub use lora::{Adapter, check_adapter};
pub use placement::Placement;
pub use rows::{RowsReport, check_rows};
pub use whole::{Part, WholeModel};

#[cfg(test)]
mod tests;
