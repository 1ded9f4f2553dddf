//! Log-probabilities by libtorch's operations, as the learner computes them on a GPU, copied to the host. The processor
//! reads logits where they lie instead (`choice.rs`). Kept sets are found on the host everywhere.

use agrpo_spec::Sampler;
use tch::{Kind, Tensor};

use super::choice::{is_greedy, kept_of, no_numbers};
use super::kept::is_filtered;
use crate::error::Result;
use crate::tensors::{length, numbers};

/// The tempered, filtered log-probabilities of N positions.
pub(super) struct Normalised {
    /// N x V, row-major; -inf outside the support.
    logps: Vec<f32>,
    vocabulary: usize,
    /// One for each position, where a filter is on.
    kept: Vec<Option<Vec<usize>>>,
}

impl Normalised {
    /// Invalid error where logits, N x V, are no numbers.
    pub(super) fn new(logits_NV: &Tensor, sampler: &Sampler, mask: usize) -> Result<Self> {
        let size = logits_NV.size();
        let [count, vocabulary] = [0, 1].map(|n| usize::try_from(size[n]).expect("sizes"));
        let mut kept = vec![None; count];
        let mut scaled_NV = logits_NV.shallow_clone();
        if !is_greedy(sampler) {
            scaled_NV = logits_NV / sampler.temperature.get();
            // The mask is never written.
            drop(scaled_NV.narrow(1, length(mask), 1).fill_(f64::NEG_INFINITY));
            if is_filtered(sampler) {
                let logits = values(logits_NV)?;
                let sets = logits.chunks(vocabulary).map(|row| kept_of(row, sampler, mask));
                kept = sets.collect::<Result<_>>()?;
                let mut dropped = vec![true; logits.len()];
                for (set, dropped) in kept.iter().zip(dropped.chunks_mut(vocabulary)) {
                    set.iter().flatten().for_each(|&id| dropped[id] = false);
                }
                let dropped_NV = Tensor::from_slice(&dropped).to_device(scaled_NV.device());
                scaled_NV =
                    scaled_NV.masked_fill(&dropped_NV.view_as(&scaled_NV), f64::NEG_INFINITY);
            }
        }
        Ok(Self { logps: values(&scaled_NV.log_softmax(-1, Kind::Float))?, vocabulary, kept })
    }

    /// The log-probabilities and the kept set of each position.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[f32], Option<Vec<usize>>)> {
        self.logps.chunks(self.vocabulary).zip(self.kept.iter().cloned())
    }
}

/// A tensor's values, row-major; refuses NaN.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let values: Vec<f32> = numbers(tensor)?;
    if values.iter().any(|value| value.is_nan()) {
        return Err(no_numbers());
    }
    Ok(values)
}
