//! The memory of tensors on the processor as slices. Copies nothing, and refuses tensors of other kinds, on other
//! devices, or not in one piece.

#![expect(unsafe_code, reason = "tch hands out raw pointers alone")]

use std::slice::{from_raw_parts, from_raw_parts_mut};

use tch::{Device, Kind, Tensor};

use crate::error::{Result, internal};

/// The numbers of a tensor of f32, row-major.
pub(crate) fn singles(tensor: &Tensor) -> Result<&[f32]> {
    let pointer = place(tensor, Some(Kind::Float))?;
    // SAFETY: as `place` says; the tensor is borrowed as long as the slice, and nothing writes to it meanwhile: no
    // other handle on its memory is in use where its numbers are read.
    Ok(unsafe { from_raw_parts(pointer.cast(), tensor.numel()) })
}

/// The same to write to. No other handle on the memory may be in use.
pub(crate) fn singles_mut(tensor: &mut Tensor) -> Result<&mut [f32]> {
    let pointer = place(tensor, Some(Kind::Float))?;
    // SAFETY: as above; the tensor is borrowed mutably.
    Ok(unsafe { from_raw_parts_mut(pointer.cast(), tensor.numel()) })
}

/// The bytes of a tensor's numbers, row-major.
pub(super) fn bytes(tensor: &Tensor) -> Result<&[u8]> {
    let size = tensor.numel() * tensor.kind().elt_size_in_bytes();
    // SAFETY: as above.
    Ok(unsafe { from_raw_parts(place(tensor, None)?, size) })
}

/// Where `numel` numbers follow one another in host memory.
fn place(tensor: &Tensor, kind: Option<Kind>) -> Result<*mut u8> {
    let is_other = kind.is_some_and(|kind| tensor.kind() != kind);
    if is_other || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(internal("expected a tensor in one piece of host memory"));
    }
    let pointer: *mut u8 = tensor.data_ptr().cast();
    // A tensor without numbers may have no memory; slices want a pointer that is aligned for all kinds.
    Ok(if pointer.is_null() {
        std::ptr::without_provenance_mut(align_of::<u64>())
    } else {
        pointer
    })
}

/// Numbers of a file, f32 in little-endian bytes.
pub(crate) fn decoded(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}
