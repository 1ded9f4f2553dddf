//! New tensors, and tensors in one piece, for operations on slices. Copies only tensors that are not contiguous.

use tch::{Device, Kind, Tensor};

use crate::tensors::{singles, singles_mut};

/// The tensor itself or, where its numbers do not lie one after another in the order of its shape, a copy.
pub(crate) fn in_one_piece(tensor: &Tensor) -> Tensor {
    if tensor.is_contiguous() { tensor.shallow_clone() } else { tensor.contiguous() }
}

/// The numbers of a tensor that the kernels compute with, in one piece.
pub(crate) fn numbers(tensor: &Tensor) -> &[f32] {
    singles(tensor).expect("kernels are given f32 in one piece of host memory")
}

/// A new tensor, whose numbers `fill` writes. It gets them as they are in memory: it has to write all.
pub(crate) fn filled(size: &[i64], fill: impl FnOnce(&mut [f32])) -> Tensor {
    let mut tensor = Tensor::empty(size, (Kind::Float, Device::Cpu));
    fill(singles_mut(&mut tensor).expect(NEW));
    tensor
}

/// Several new tensors, as [`filled`].
pub(crate) fn filled_several(
    sizes: &[Vec<i64>],
    fill: impl FnOnce(&mut [&mut [f32]]),
) -> Vec<Tensor> {
    let new = |size: &Vec<i64>| Tensor::empty(&size[..], (Kind::Float, Device::Cpu));
    let mut tensors: Vec<Tensor> = sizes.iter().map(new).collect();
    let mut slices: Vec<&mut [f32]> =
        tensors.iter_mut().map(|tensor| singles_mut(tensor).expect(NEW)).collect();
    fill(&mut slices);
    tensors
}

const NEW: &str = "a new tensor lies in one piece of host memory";
