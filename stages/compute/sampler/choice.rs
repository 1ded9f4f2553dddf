//! One position's distribution: a draw, the log-probability and the entropy of a token.
//!
//! Tokens are drawn by inverse CDF in f64, in the order of their ids: one uniform number a token. A row of logits is
//! read where it lies; a distribution keeps sums and kept logits.

use std::borrow::Cow;

use agrpo_spec::{Sampler, StageError};

use super::kept::{is_filtered, kept_set};
use crate::error::{Result, invalid};
use crate::kernels::row::{BLOCK, Row, larger, largest};
use crate::kernels::softmax::Softmax;

/// The tempered, filtered distribution at one position of a state.
#[derive(Debug)]
pub(super) struct Distribution<'a> {
    /// Logits, or log-probabilities that libtorch normalised: of all tokens or of the kept ones.
    values: Cow<'a, [f32]>,
    are_logps: bool,
    /// The place of the mask among the values, where it has no probability.
    excluded: Option<usize>,
    /// The ids of the values, ascending, where a filter is on.
    kept: Option<Vec<usize>>,
    /// The place of the token that a greedy sampler chooses.
    best: Option<usize>,
    softmax: Softmax,
}

impl<'a> Distribution<'a> {
    /// From a row of V logits, which the learner's kernel normalises as well.
    pub(super) fn of_logits(logits: &'a [f32], sampler: &Sampler, mask: usize) -> Result<Self> {
        let kept = kept_of(logits, sampler, mask)?;
        // Greedy decoding ranks positions by the raw distribution, as LLaDA's own code does.
        let temperature = if is_greedy(sampler) { 1.0 } else { sampler.temperature.get() };
        Self::new(logits, kept, (sampler, mask), temperature)
    }

    /// From V log-probabilities, -inf outside the support, and their kept set.
    pub(super) fn of_logps(
        logps: &'a [f32],
        kept: Option<Vec<usize>>,
        sampler: &Sampler,
        mask: usize,
    ) -> Result<Self> {
        Ok(Self { are_logps: true, ..Self::new(logps, kept, (sampler, mask), 1.0)? })
    }

    fn new(
        row: &'a [f32],
        kept: Option<Vec<usize>>,
        (sampler, mask): (&Sampler, usize),
        temperature: f64,
    ) -> Result<Self> {
        let values = match &kept {
            Some(kept) => Cow::Owned(kept.iter().map(|&id| row[id]).collect()),
            None => Cow::Borrowed(row),
        };
        let mut excluded = kept.is_none().then_some(mask);
        let row = Row { values: &values, excluded };
        let maxima = row.maxima();
        let (mut max, mut best) = (largest(&maxima), None);
        if is_greedy(sampler) {
            // The mask is not chosen, and has its part in the distribution.
            (best, excluded) = (Some(place_of(max, &row, &maxima)), None);
            max = larger(max, values[mask]);
        }
        let softmax = Softmax::new(&Row { values: &values, excluded }, max, temperature);
        if !softmax.is_distribution() {
            return Err(no_numbers());
        }
        Ok(Self { values, are_logps: false, excluded, kept, best, softmax })
    }

    /// The place of a token among the values: the most probable one of a greedy sampler, else the one whose interval
    /// of the cumulative distribution holds `uniform`.
    pub(super) fn choose(&self, uniform: impl FnOnce() -> f64) -> usize {
        if let Some(best) = self.best {
            return best;
        }
        let row = Row { values: &self.values, excluded: self.excluded };
        let (chunk, fraction) = inverse(self.softmax.sums(), |&sum| sum, uniform());
        let weights = self.softmax.weights(&row, chunk);
        chunk * weights.len() + inverse(&weights, |&weight| f64::from(weight), fraction).0
    }

    /// The id of a place.
    pub(super) fn token(&self, place: usize) -> usize {
        self.kept.as_ref().map_or(place, |kept| kept[place])
    }

    pub(super) fn logp(&self, place: usize) -> f32 {
        let value = self.values[place];
        if self.are_logps { value } else { self.softmax.logp(value) }
    }

    /// In nats.
    pub(super) fn entropy(&self) -> f64 {
        self.softmax.entropy()
    }

    pub(super) fn kept(&self) -> Option<&[usize]> {
        self.kept.as_deref()
    }
}

/// The token that a sampler draws from one row of V logits by a uniform number in [0, 1), its log-probability and its
/// distribution's entropy, in nats. Invalid error where the logits are not numbers.
pub fn choose(
    logits: &[f32],
    sampler: &Sampler,
    mask: usize,
    uniform: f64,
) -> Result<(usize, f32, f64)> {
    let at = Distribution::of_logits(logits, sampler, mask)?;
    let place = at.choose(|| uniform);
    Ok((at.token(place), at.logp(place), at.entropy()))
}

/// The kept set of a row of logits, where a filter is on. The mask is never written.
pub(super) fn kept_of(
    logits: &[f32],
    sampler: &Sampler,
    mask: usize,
) -> Result<Option<Vec<usize>>> {
    if is_greedy(sampler) || !is_filtered(sampler) {
        return Ok(None);
    }
    kept_set(&Row { values: logits, excluded: Some(mask) }, sampler)
        .map(Some)
        .ok_or_else(no_numbers)
}

pub(super) fn is_greedy(sampler: &Sampler) -> bool {
    sampler.temperature.get() == 0.0
}

/// From a NaN, a token could be chosen by accident.
pub(super) fn no_numbers() -> StageError {
    invalid("the policy's logits are not numbers: training has diverged; lower the learning rate")
}

/// The first place of the row's largest value.
fn place_of(max: f32, row: &Row<'_>, maxima: &[f32]) -> usize {
    let block = maxima.iter().position(|of_block| *of_block == max).unwrap_or(0);
    let is_max = |place: &usize| row.values[*place] == max && row.excluded != Some(*place);
    (block * BLOCK..row.values.len()).find(is_max).unwrap_or(0)
}

/// The interval that holds `uniform` times the sum of all masses, and where in it, from 0 to 1.
fn inverse<T>(items: &[T], mass: impl Fn(&T) -> f64, uniform: f64) -> (usize, f64) {
    let target = uniform * items.iter().map(&mass).sum::<f64>();
    let mut before = 0.0;
    let mut last = 0;
    for (n, item) in items.iter().enumerate() {
        let mass = mass(item);
        if mass > 0.0 {
            if target < before + mass {
                return (n, (target - before) / mass);
            }
            before += mass;
            last = n;
        }
    }
    // Rounding can leave the target on the upper end, which belongs to the last item that has a mass.
    (last, 1.0)
}

#[cfg(test)]
mod tests;
