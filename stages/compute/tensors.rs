//! Tensors as bytes: safetensors files, whole or window by window. Opens no file.

mod files;
mod windows;

pub(crate) use files::{NamedTensors, doubles, floats, named_kind, read, write, write_weights};
pub(crate) use windows::{Entry, TensorWindows};
