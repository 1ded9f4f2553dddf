//! The merged weights of a policy, tensor by tensor and window by window, as other programs read them.
//!
//! ```text
//! W + s B A      (Hu et al., LoRA, arXiv 2106.09685): in f32, over the rank in its order, then rounded to W's kind
//! ```
//! The sum is taken by code of its own, since the order of libtorch's depends on the processor: equal
//! policies give equal bytes on every machine, and the difference to what a merged policy computes with is
//! that of the order. Beside the adapter a few windows are in memory. Writes no file: the caller's `sink` does.

use std::collections::BTreeMap;

use agrpo_spec::{Files, StageError, WINDOW};
use bytes::Bytes;
use half::{bf16, f16};
use tch::Kind;

use super::{checkpoint::Checkpoint, config::ModelConfig, linear::Lora, lora};
use crate::error::{Result, data, internal};
use crate::tensors::{Entry, TensorWindows, decode, numbers, type_name};

/// A tensor of a model, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its file.
    pub file: String,
    /// Its name in the checkpoint.
    pub name: String,
    /// The type of its numbers as safetensors spells it: `BF16`.
    pub dtype: &'static str,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its length in its file.
    pub bytes: u64,
}

/// All tensors of a policy, with its adapter merged where it has one.
#[derive(Debug)]
pub struct MergedWeights {
    config: ModelConfig,
    shards: Vec<TensorWindows>,
    /// By the names of the tensors that an adapter changes.
    changes: BTreeMap<String, Change>,
}

/// What an adapter adds to a matrix.
#[derive(Debug)]
struct Change {
    /// R x I, row-major.
    a: Vec<f32>,
    /// O x R, row-major.
    b: Vec<f32>,
    rank: usize,
    inputs: usize,
    scale: f32,
}

impl MergedWeights {
    /// Reads a policy's headers and its adapter. Data error where a tensor is missing, unknown or of another
    /// shape than `config.json` says.
    pub fn open(files: &Files) -> Result<Self> {
        let config = ModelConfig::of_folder(files)?;
        let checkpoint = Checkpoint::open(files)?;
        checkpoint.check(&config)?;
        let mut changes = BTreeMap::new();
        if lora::is_in(files) {
            for (module, matrices) in lora::read(&config, files)?.1 {
                changes.insert(format!("{module}.weight"), Change::new(&matrices)?);
            }
        }
        let merged = Self { config, shards: checkpoint.shards, changes };
        let is_wide = |part: &Part| part.dtype == "F64" && merged.changes.contains_key(&part.name);
        match merged.parts().into_iter().find(is_wide) {
            Some(Part { file, name, .. }) => Err(data(format!(
                "{file}: {name} is F64, expected F32, F16 or BF16: adapters are merged in f32"
            ))),
            None => Ok(merged),
        }
    }

    /// The model's sizes and special tokens.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Every tensor, file by file, in the order of their bytes.
    pub fn parts(&self) -> Vec<Part> {
        let of_shard = |shard: &TensorWindows| {
            let mut tensors: Vec<_> = shard.tensors.iter().collect();
            tensors.sort_by_key(|(_, entry)| entry.range.start);
            let part = |(name, entry): (&String, &Entry)| Part {
                file: shard.name.to_owned(),
                name: name.clone(),
                dtype: type_name(entry.kind),
                shape: entry.shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect(),
                bytes: entry.bytes(),
            };
            tensors.into_iter().map(part).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// The bytes before the tensors in a file of the policy.
    pub fn header(&self, file: &str) -> Result<Bytes> {
        self.shard(file)?.header()
    }

    /// Passes a tensor's bytes to `sink`, piece by piece, in their order. Returns the errors of `sink`.
    pub fn read<E: From<StageError>>(
        &self,
        part: &Part,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let shard = self.shard(&part.file)?;
        let change = self.changes.get(&part.name);
        let kind = shard.entry(&part.name)?.kind;
        let row = change.map_or(1, |change| change.inputs * kind.elt_size_in_bytes());
        // Whole rows, as many as a window holds.
        let step = (WINDOW / row as u64).max(1) * row as u64;
        for at in (0..part.bytes).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let bytes = shard.piece(&part.name, at..part.bytes.min(at + step))?;
            match change {
                Some(change) => {
                    let first = usize::try_from(at).unwrap_or(usize::MAX) / row;
                    let sum = change.added(first, decode(kind, &bytes));
                    sink(&encode(kind, &sum)?)?;
                }
                None => sink(&bytes)?,
            }
        }
        Ok(())
    }

    fn shard(&self, file: &str) -> Result<&TensorWindows> {
        let found = self.shards.iter().find(|shard| shard.name == file);
        found.ok_or_else(|| internal(format!("the policy has no file {file}")))
    }
}

impl Change {
    fn new(lora: &Lora) -> Result<Self> {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        let shape = lora.a_RxI.size();
        #[expect(clippy::cast_possible_truncation, reason = "the learner multiplies in f32")]
        let scale = lora.scale as f32;
        let (rank, inputs) = (size(shape[0]), size(shape[1]));
        Ok(Self { a: numbers(&lora.a_RxI)?, b: numbers(&lora.b_OxR)?, rank, inputs, scale })
    }

    /// Rows of W from `first` on, with their share of s B A.
    fn added(&self, first: usize, mut rows: Vec<f32>) -> Vec<f32> {
        let mut sum = vec![0f32; self.inputs];
        for (row, w) in (first..).zip(rows.chunks_exact_mut(self.inputs)) {
            sum.fill(0.0);
            let factors = &self.b[row * self.rank..(row + 1) * self.rank];
            for (&b, a) in factors.iter().zip(self.a.chunks_exact(self.inputs)) {
                for (sum, &a) in sum.iter_mut().zip(a) {
                    *sum += b * a;
                }
            }
            for (w, &sum) in w.iter_mut().zip(&sum) {
                *w += self.scale * sum;
            }
        }
        rows
    }
}

/// Rounded to nearest, ties to even.
fn encode(kind: Kind, values: &[f32]) -> Result<Vec<u8>> {
    match kind {
        Kind::BFloat16 => {
            Ok(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect())
        }
        Kind::Half => Ok(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
        Kind::Float => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        _ => Err(internal(format!("no adapter is merged into {kind:?}"))),
    }
}

#[cfg(test)]
mod tests;
