//! One position's distribution: a draw, the log-probability and the entropy of a token, and how confident it is.
//!
//! Tokens are drawn by inverse CDF in f64, in the order of their ids: one uniform number a token. A row of logits is
//! read where it lies; a distribution keeps sums and kept logits. The model's own distribution, the softmax of all logits
//! with the mask's, has one number here, its normaliser, and that only where `confidence = "model"` ranks by it.

use std::{borrow::Cow, collections::BTreeMap};

use agrpo_spec::{Confidence, Sampler, StageError};

use super::kept::{is_filtered, kept_set};
use crate::error::{Result, invalid};
use crate::kernels::row::{BLOCK, CHUNK, Row, larger, largest};
use crate::kernels::softmax::{Softmax, Weights};

/// The tempered, filtered distribution at one position of a state.
#[derive(Debug)]
pub(super) enum Distribution<'a> {
    /// Its logits are on the host.
    Host(Whole<'a>),
    /// A device has normalised it.
    Device(Part),
}

/// A distribution with all its logits.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Logits of all tokens or of the kept ones.
    values: Cow<'a, [f32]>,
    /// The place of the mask among the values, where it has no probability.
    excluded: Option<usize>,
    /// The ids of the values, ascending, where a filter is on.
    kept: Option<Vec<usize>>,
    /// The place of the token that a greedy sampler chooses.
    best: Option<usize>,
    softmax: Softmax,
    /// That of the model's own distribution, where positions are ranked by it.
    normaliser: Option<f64>,
}

/// What the host knows of a distribution on a device (`device.rs`): enough for the draws that were announced.
#[derive(Debug)]
pub(super) enum Part {
    /// A greedy sampler's token, its log-probability, the entropy, and the margin, as below.
    Best { token: usize, logp: f32, entropy: f64, margin: f64 },
    /// The weight of each [`CHUNK`] tokens, the log-probabilities in those that draws lead to, and the entropy.
    Chunks {
        sums: Vec<f64>,
        logps: BTreeMap<usize, Vec<f32>>,
        entropy: f64,
        /// 0 where positions are not ranked by it.
        margin: f64,
        /// Where positions are ranked by it, the model's own log-probabilities in the same chunks.
        own: Option<BTreeMap<usize, Vec<f32>>>,
    },
}

impl<'a> Distribution<'a> {
    /// From a row of V logits.
    pub(super) fn of_logits(logits: &'a [f32], sampler: &Sampler, mask: usize) -> Result<Self> {
        let normaliser = ranks_by_model(sampler).then(|| normaliser(logits)).transpose()?;
        if !is_greedy(sampler) && is_filtered(sampler) {
            let row = Row { values: logits, excluded: Some(mask) };
            return Self::of_kept(&row, |id| id, sampler, normaliser);
        }
        Ok(Self::Host(Whole { normaliser, ..Whole::new(logits.into(), None, sampler, mask)? }))
    }

    /// The filtered distribution of a row: of all tokens, or of those candidates outside of which none is as good. `id`
    /// is the token of a place, ascending; `normaliser` that of the model's own distribution, if positions are ranked by it.
    pub(super) fn of_kept(
        row: &Row<'_>,
        id: impl Fn(usize) -> usize,
        sampler: &Sampler,
        normaliser: Option<f64>,
    ) -> Result<Distribution<'static>> {
        let places = kept_set(row, sampler).ok_or_else(no_numbers)?;
        let values = places.iter().map(|&place| row.values[place]).collect();
        Self::of_set(values, places.into_iter().map(id).collect(), sampler, normaliser)
    }

    /// The distribution over a kept set, by the logits of its tokens and their ids, ascending.
    pub(super) fn of_set(
        values: Vec<f32>,
        ids: Vec<usize>,
        sampler: &Sampler,
        normaliser: Option<f64>,
    ) -> Result<Distribution<'static>> {
        let whole = Whole::new(values.into(), Some(ids), sampler, 0)?;
        Ok(Distribution::Host(Whole { normaliser, ..whole }))
    }

    /// The place of a token: the most probable one of a greedy sampler, else the one whose interval of the cumulative
    /// distribution holds `uniform`.
    pub(super) fn choose(&self, uniform: impl FnOnce() -> f64) -> usize {
        match self {
            Self::Host(whole) => whole.choose(uniform),
            Self::Device(Part::Best { token, .. }) => *token,
            Self::Device(Part::Chunks { sums, logps, .. }) => {
                let (chunk, fraction) = chunk_of(sums, uniform());
                let logps = &logps[&chunk];
                let mut weights = vec![0.0; logps.len()];
                Weights::new(0.0, 1.0).fill(&mut weights, logps);
                chunk * CHUNK + inverse(&weights, |&weight| f64::from(weight), fraction).0
            }
        }
    }

    /// The id of a place.
    pub(super) fn token(&self, place: usize) -> usize {
        self.kept().map_or(place, |kept| kept[place])
    }

    pub(super) fn logp(&self, place: usize) -> f32 {
        match self {
            Self::Host(whole) => whole.softmax.logp(whole.values[place]),
            Self::Device(Part::Best { logp, .. }) => *logp,
            Self::Device(Part::Chunks { logps, .. }) => logps[&(place / CHUNK)][place % CHUNK],
        }
    }

    /// The log-probability by which positions are ranked and which a threshold is compared with: [`Self::logp`], or the
    /// model's own.
    pub(super) fn confidence(&self, place: usize) -> f32 {
        match self {
            Self::Host(Whole { values, normaliser: Some(normaliser), .. }) => {
                #[expect(clippy::cast_possible_truncation, reason = "as other log-probabilities")]
                let logp = (f64::from(values[place]) - normaliser) as f32;
                logp
            }
            Self::Device(Part::Chunks { own: Some(own), .. }) => {
                own[&(place / CHUNK)][place % CHUNK]
            }
            _ => self.logp(place),
        }
    }

    /// In nats.
    pub(super) fn entropy(&self) -> f64 {
        match self {
            Self::Host(whole) => whole.softmax.entropy(),
            Self::Device(Part::Best { entropy, .. } | Part::Chunks { entropy, .. }) => *entropy,
        }
    }

    /// The probability of the most probable token minus that of the second.
    pub(super) fn margin(&self) -> f64 {
        match self {
            Self::Host(whole) => whole.margin(),
            Self::Device(Part::Best { margin, .. } | Part::Chunks { margin, .. }) => *margin,
        }
    }

    pub(super) fn kept(&self) -> Option<&[usize]> {
        match self {
            Self::Host(whole) => whole.kept.as_deref(),
            Self::Device(_) => None,
        }
    }
}

impl<'a> Whole<'a> {
    fn new(
        values: Cow<'a, [f32]>,
        kept: Option<Vec<usize>>,
        sampler: &Sampler,
        mask: usize,
    ) -> Result<Self> {
        // Greedy decoding ranks positions by the raw distribution, as LLaDA's own code does.
        let temperature = if is_greedy(sampler) { 1.0 } else { sampler.temperature.get() };
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
        Ok(Self { values, excluded, kept, best, softmax, normaliser: None })
    }

    fn choose(&self, uniform: impl FnOnce() -> f64) -> usize {
        if let Some(best) = self.best {
            return best;
        }
        let row = Row { values: &self.values, excluded: self.excluded };
        let (chunk, fraction) = chunk_of(self.softmax.sums(), uniform());
        let weights = self.softmax.weights(&row, chunk);
        let first = chunk * weights.len();
        let weights = &weights[..weights.len().min(self.values.len() - first)];
        first + inverse(weights, |&weight| f64::from(weight), fraction).0
    }
}

impl Whole<'_> {
    fn margin(&self) -> f64 {
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (place, &value) in self.values.iter().enumerate() {
            if self.excluded == Some(place) || value <= second {
                continue;
            }
            (best, second) = if value > best { (value, best) } else { (best, value) };
        }
        let [best, second] = [best, second].map(|l| libm::exp(f64::from(self.softmax.logp(l))));
        best - second
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

pub(super) fn is_greedy(sampler: &Sampler) -> bool {
    sampler.temperature.get() == 0.0
}

/// Whether positions are ranked by another distribution than the one that tokens are drawn from. That of a greedy sampler
/// is the model's own.
pub(super) fn ranks_by_model(sampler: &Sampler) -> bool {
    sampler.confidence == Confidence::Model && !is_greedy(sampler)
}

/// The normaliser of a row's softmax over all tokens, the mask too.
fn normaliser(logits: &[f32]) -> Result<f64> {
    let row = Row { values: logits, excluded: None };
    let softmax = Softmax::new(&row, largest(&row.maxima()), 1.0);
    if !softmax.is_distribution() {
        return Err(no_numbers());
    }
    Ok(softmax.normaliser())
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

/// The chunk in whose interval of the cumulative sums `uniform` lies, and where in it, from 0 to 1.
pub(super) fn chunk_of(sums: &[f64], uniform: f64) -> (usize, f64) {
    inverse(sums, |&sum| sum, uniform)
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
