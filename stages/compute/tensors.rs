//! Tensors by name: their sums, and their files in safetensors, whole or window by window. Opens no file.

use tch::{Device, Tensor, no_grad_guard};

mod files;
mod memory;
mod windows;

pub(crate) use files::{
    NamedTensors, decode, is_finite, length, numbers, type_name, write, write_weights,
};
pub(crate) use memory::{decoded, singles, singles_mut};
pub(crate) use windows::{Entry, TensorWindows};

/// A tensor of the host on a device, without waiting for what the device computes: CUDA sets the numbers aside before
/// the call returns, as long as their memory is not pinned.
pub(crate) fn upload(tensor: &Tensor, device: Device) -> Tensor {
    if tensor.device() == device {
        return tensor.shallow_clone();
    }
    tensor.to_device_(device, tensor.kind(), true, false)
}

/// Adds tensors to a sum, in place; an empty sum takes them as they are.
pub(crate) fn add(sum: &mut NamedTensors, more: NamedTensors) {
    let _no_grad = no_grad_guard();
    for (name, tensor) in more {
        match sum.get_mut(&name) {
            Some(so_far) => *so_far += tensor,
            None => drop(sum.insert(name, tensor)),
        }
    }
}
