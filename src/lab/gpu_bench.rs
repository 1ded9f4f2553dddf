//! `agrpo bench-gpu`: whether a device computes what the processor computes (`parity.rs`), how fast it samples and
//! differentiates a model of a given size (`measure.rs`), and which share of its peak that is (`utilisation.rs`).

mod load;
mod measure;
mod parity;
mod utilisation;

pub use load::Load;
pub use measure::{Figures, measure};
pub use parity::{Parity, parity};
pub use utilisation::Utilisation;
