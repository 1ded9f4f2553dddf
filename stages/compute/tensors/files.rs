//! Whole safetensors files in memory, and the copies between bytes and libtorch.
//!
//! Equal tensors give equal bytes: the format orders tensors by type and name, and the only metadata
//! written is one fixed pair. Opens no file: bytes are arguments and results.

use std::collections::BTreeMap;

use agrpo_spec::StageError;
use bytes::Bytes;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use crate::error::{data, invalid, libtorch};

/// Named tensors, in the order of their names.
pub(crate) type NamedTensors = BTreeMap<String, Tensor>;

/// Writes the weights of a policy. Invalid error where one is not finite: a reader of the
/// policy would take the file for damaged, and computing it again would not help.
pub(crate) fn write_weights(weights: &NamedTensors) -> Result<Bytes, StageError> {
    for (name, weight) in weights {
        if weight.isfinite().all().int64_value(&[]) == 0 {
            return Err(invalid(format!(
                "{name} is not finite: training has diverged; lower the learning rate"
            )));
        }
    }
    write(weights)
}

/// Writes tensors. Each is made contiguous first. `metadata` says `format: pt`, which Hugging Face's
/// loaders ask for.
pub(crate) fn write(tensors: &NamedTensors) -> Result<Bytes, StageError> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.detach().f_contiguous().map_err(|e| libtorch(&e))?;
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            kind => return Err(StageError::Internal(format!("no file format for {kind:?}"))),
        };
        let shape: Vec<usize> = tensor
            .size()
            .into_iter()
            .map(|n| usize::try_from(n).expect("sizes are not negative"))
            .collect();
        let mut raw = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut raw, tensor.numel()).map_err(|e| libtorch(&e))?;
        parts.push((name.as_str(), dtype, shape, raw));
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, dtype, shape, raw) in &parts {
        let view = TensorView::new(*dtype, shape.clone(), raw)
            .map_err(|error| StageError::Internal(format!("{name}: {error}")))?;
        views.push((*name, view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    safetensors::serialize(views, Some(metadata))
        .map(Bytes::from)
        .map_err(|error| StageError::Internal(format!("writing safetensors: {error}")))
}

/// The kind of a file's numbers; `None` where nothing here computes with them.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::I64 => Some(Kind::Int64),
        Dtype::I32 => Some(Kind::Int),
        Dtype::U8 => Some(Kind::Uint8),
        _ => None,
    }
}

/// The kind of numbers as people write it.
pub(crate) fn named_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::Double => "f64",
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        Kind::Int64 => "i64",
        Kind::Int => "i32",
        Kind::Uint8 => "u8",
        _ => "another type",
    }
}

/// Reads all tensors of a file; `what` names it in errors.
pub(crate) fn read(bytes: &[u8], what: &str) -> Result<NamedTensors, StageError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| data(format!("{what} is not a safetensors file: {error}")))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.iter() {
        let kind = kind_of(view.dtype())
            .ok_or_else(|| data(format!("{what}: {name} has the type {:?}", view.dtype())))?;
        // A header's own check says nothing of a huge size beside one of 0.
        let shape = view.shape().iter().map(|&n| i64::try_from(n));
        let shape: Vec<i64> = shape.collect::<Result<_, _>>().map_err(|_| {
            data(format!("{what}: {name} has the impossible shape {:?}", view.shape()))
        })?;
        let tensor =
            Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| libtorch(&e))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// A tensor that a file should have.
pub(crate) fn lacks(what: &str, name: &str) -> StageError {
    data(format!("{what} has no tensor {name}"))
}

/// Refuses a tensor of another shape or kind than expected.
pub(crate) fn check_form(
    (what, name): (&str, &str),
    (found, found_kind): (&[i64], Kind),
    (shape, kind): (&[i64], Kind),
) -> Result<(), StageError> {
    if found == shape && found_kind == kind {
        return Ok(());
    }
    Err(data(format!("{what}: {name} is {found_kind:?} {found:?}, expected {kind:?} {shape:?}")))
}

/// The numbers of an f32 tensor, row-major.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>, StageError> {
    let tensor = tensor.detach().f_contiguous().map_err(|e| libtorch(&e))?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).map_err(|e| libtorch(&e))?;
    Ok(values)
}

/// The numbers of a tensor of any floating kind, row-major.
pub(crate) fn doubles(tensor: &Tensor) -> Result<Vec<f64>, StageError> {
    let tensor = tensor.detach().to_kind(Kind::Double).contiguous();
    let mut values = vec![0f64; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).map_err(|e| libtorch(&e))?;
    Ok(values)
}
