//! Fuzz entry points: the decoders of untrusted bytes that no other public function reaches. For the fuzzers
//! and the tests of damaged bytes; stages call the decoders themselves.

use agrpo_spec::Content;
use bytes::Bytes;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::{optimizer::AdamW, tensors::TensorWindows, threads::Threads};

pub use crate::model::check_adapter as adapter;

/// Reads a safetensors file window by window: a shard of a checkpoint, an adapter, a gradient. Returns the number of
/// tensors.
pub fn tensor_windows(bytes: Bytes) -> Result<usize> {
    let file = TensorWindows::open("the file", &Content::Memory(bytes))?;
    file.read().map(|tensors| tensors.len())
}

/// Reads an optimizer's state for one matrix `w` of this shape.
pub fn optimizer_state(bytes: Bytes, shape: [i64; 2]) -> Result<()> {
    let w = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let parameters = [("w".to_owned(), w)].into_iter().collect();
    AdamW::read(&Content::Memory(bytes), &parameters, &Threads::one()).map(drop)
}
