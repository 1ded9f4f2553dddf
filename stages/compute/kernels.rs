//! The forward pass's operations on the processor in f32, written out over raw memory, with their backward passes.
//!
//! Every sum has one order, written down beside it, whatever the processor: with AVX2 or AVX-512, on any machine, a result
//! has the same bits, and a row's result does not depend on the rows beside it. libtorch computes other kinds, other
//! devices and all other operations. Decides nothing about the model, and starts no thread.

use tch::{Device, Kind, Tensor};

mod attention;
mod custom;
pub(crate) mod histogram;
mod lanes;
pub(crate) mod memory;
mod norm;
pub mod phases;
mod product;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod softmax;
mod swiglu;
#[cfg(test)]
mod testing;
mod tiles;

pub(crate) use attention::{Angles, Heads, Positions, Seen, attention};
pub(crate) use custom::{differentiable, records_gradients};
pub use lanes::missing_instructions;
pub(crate) use norm::rms_norm;
pub(crate) use product::linear;
pub(crate) use swiglu::swiglu;

/// Whether the kernels compute with this tensor: f32 on the processor.
pub(crate) fn compute(x: &Tensor) -> bool {
    x.kind() == Kind::Float && x.device() == Device::Cpu
}

#[cfg(test)]
mod tests;
