//! Tensors by name: their sums, and their files in safetensors, whole or window by window. Opens no file.

use tch::no_grad_guard;

mod files;
mod memory;
mod windows;

pub(crate) use files::{
    NamedTensors, decode, is_finite, length, numbers, type_name, write, write_weights,
};
pub(crate) use memory::{decoded, singles, singles_mut};
pub(crate) use windows::{Entry, TensorWindows};

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
