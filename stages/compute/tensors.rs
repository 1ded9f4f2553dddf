//! Tensors as bytes: safetensors files, whole or window by window. Opens no file.

mod files;
mod windows;

pub(crate) use files::{
    NamedTensors, decode, is_finite, length, numbers, type_name, write, write_weights,
};
pub(crate) use windows::{Entry, TensorWindows};
