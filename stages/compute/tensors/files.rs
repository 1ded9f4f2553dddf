//! Whole safetensors files in memory, and the copies between bytes and libtorch.
//!
//! Equal tensors give equal bytes: the format orders tensors by type and name, and the only metadata
//! written is one fixed pair. Opens no file: bytes are arguments and results.

use std::{borrow::Cow, collections::BTreeMap};

use agrpo_spec::trajectories;
use bytes::Bytes;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use super::memory::{bytes, singles};
use crate::error::{Result, internal, invalid, libtorch};

/// Named tensors, in the order of their names.
pub(crate) type NamedTensors = BTreeMap<String, Tensor>;

/// The kinds of numbers in files: for libtorch, for safetensors, and as headers spell them.
const KINDS: [(Kind, Dtype, &str); 7] = [
    (Kind::Float, Dtype::F32, "F32"),
    (Kind::Double, Dtype::F64, "F64"),
    (Kind::Half, Dtype::F16, "F16"),
    (Kind::BFloat16, Dtype::BF16, "BF16"),
    (Kind::Int64, Dtype::I64, "I64"),
    (Kind::Int, Dtype::I32, "I32"),
    (Kind::Uint8, Dtype::U8, "U8"),
];

/// The kind of a file's numbers; `None` for kinds that policies do not use.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(_, of, _)| *of == dtype).map(|(kind, _, _)| *kind)
}

/// The type of a file's numbers as its header spells it.
pub(crate) fn type_name(kind: Kind) -> &'static str {
    KINDS.iter().find(|(of, _, _)| *of == kind).map_or("another type", |(_, _, name)| name)
}

/// Writes the weights of a policy. Invalid error where one is not finite: a reader of the
/// policy would take the file for damaged, and computing it again would not help.
pub(crate) fn write_weights(weights: &NamedTensors) -> Result<Bytes> {
    match weights.iter().find(|(_, weight)| !is_finite(weight)) {
        Some((name, _)) => Err(invalid(format!(
            "{name} is not finite: training has diverged; lower the learning rate"
        ))),
        None => write(weights),
    }
}

pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    match singles(tensor) {
        // A whole chunk at a time, so that it is compared in vectors.
        Ok(numbers) => numbers
            .chunks(1 << 10)
            .all(|chunk| chunk.iter().fold(true, |so_far, number| so_far & number.is_finite())),
        Err(_) => tensor.isfinite().all().int64_value(&[]) != 0,
    }
}

/// Writes tensors. Copies first those that are on a GPU, or not in one piece.
pub(crate) fn write(tensors: &NamedTensors) -> Result<Bytes> {
    let here = |tensor: &Tensor| tensor.detach().f_to_device(Device::Cpu)?.f_contiguous();
    let here: Vec<Tensor> =
        tensors.values().map(here).collect::<Result<_, _>>().map_err(libtorch)?;
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors.keys().zip(&here) {
        let kind = tensor.kind();
        let Some((_, dtype, _)) = KINDS.iter().find(|(of, _, _)| *of == kind) else {
            return Err(internal(format!("no file format for {kind:?}")));
        };
        let size = |n| usize::try_from(n).expect("sizes are not negative");
        let shape: Vec<usize> = tensor.size().into_iter().map(size).collect();
        parts.push((name.as_str(), *dtype, shape, Cow::Borrowed(bytes(tensor)?)));
    }
    trajectories::write_tensors(&parts)
}

/// A tensor's numbers, row-major; of another kind, converted.
pub(crate) fn numbers<T: Element>(tensor: &Tensor) -> Result<Vec<T>> {
    let tensor = tensor.detach().to_kind(T::KIND).contiguous();
    let mut values = vec![T::ZERO; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).map_err(libtorch)?;
    Ok(values)
}

/// A count or an index in libtorch's integer type.
pub(crate) fn length(n: usize) -> i64 {
    i64::try_from(n).expect("lengths and ids fit")
}

/// A file's floating numbers in f32; none where they are of another kind.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter().copied();
    match kind {
        Kind::BFloat16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Kind::Half => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Kind::Float => bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect(),
        #[expect(clippy::cast_possible_truncation, reason = "policies compute in f32 at most")]
        Kind::Double => {
            let numbers = bytes.as_chunks::<8>().0.iter().copied().map(f64::from_le_bytes);
            numbers.map(|number| number as f32).collect()
        }
        _ => vec![],
    }
}
