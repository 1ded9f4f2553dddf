//! The softmax of one row of logits in f32: the one normaliser that sampler and learner share, so that a fresh
//! trajectory has the same log-probabilities in both, to the bit.
//!
//! ```text
//! w_v = exp((l_v - max l) / T),   log p_v = (l_v - max l) / T - log sum over v of w_v
//! entropy = log sum w - sum w (l - max l) / (T sum w)
//! ```
//! A sum has [`LANES`] parts in f32 within a [`CHUNK`] of tokens, and adds chunks in f64, in their order. Draws nothing.
//! A row without a finite maximum, or with a NaN, has NaN as its log-probabilities.

use super::lanes::{LANES, exp, vectorised};
use super::row::{CHUNK, Row};

/// exp((l - max) / T) of logits l up to max: 0 where it is below exp(-87), NaN for NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    max: f32,
    /// 1 / T.
    factor: f32,
}

impl Weights {
    #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
    pub(crate) fn new(max: f32, temperature: f64) -> Self {
        // Bounded, so that a distance of 0 stays 0, and an infinite one infinite.
        let factor = ((1.0 / temperature) as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        Self { max, factor }
    }

    /// What a distance from the largest logit is multiplied with.
    pub(crate) fn factor(self) -> f32 {
        self.factor
    }

    pub(crate) fn fill(self, weights: &mut [f32], logits: &[f32]) {
        vectorised!(fill_weights(weights, logits, self));
    }
}

/// The distribution of one row at a temperature.
#[derive(Debug)]
pub(crate) struct Softmax {
    max: f32,
    temperature: f64,
    weights: Weights,
    /// The sum of the weights of each chunk.
    sums: Vec<f64>,
    /// Of all chunks.
    sum: f64,
    log_sum: f64,
    entropy: f64,
}

impl Softmax {
    /// `max` is the largest of the row's values.
    pub(crate) fn new(row: &Row<'_>, max: f32, temperature: f64) -> Self {
        let weights = Weights::new(max, temperature);
        let mut copy = [0.0; CHUNK];
        let (mut sums, mut distance) = (Vec::with_capacity(row.chunks()), 0.0);
        for chunk in 0..row.chunks() {
            let (masses, distances) = vectorised!(sums_of(row.chunk(chunk, &mut copy), weights));
            sums.push(total(&masses));
            distance += total(&distances);
        }
        let sum: f64 = sums.iter().sum();
        let log_sum = libm::log(sum);
        let entropy = log_sum - distance / (temperature * sum);
        Self { max, temperature, weights, sums, sum, log_sum, entropy }
    }

    /// Whether the row has a finite maximum and no NaN.
    pub(crate) fn is_distribution(&self) -> bool {
        self.log_sum.is_finite()
    }

    /// The sums of the weights of each [`CHUNK`] tokens.
    pub(crate) fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// The weights of a chunk, 1 at the largest logit; 0 after the last token.
    pub(crate) fn weights(&self, row: &Row<'_>, chunk: usize) -> [f32; CHUNK] {
        let (mut copy, mut weights) = ([0.0; CHUNK], [0.0; CHUNK]);
        let values = row.chunk(chunk, &mut copy);
        self.weights.fill(&mut weights[..values.len()], values);
        weights
    }

    /// The log-probability, in nats, of a token with this logit.
    #[expect(clippy::cast_possible_truncation, reason = "log-probabilities are recorded as f32")]
    pub(crate) fn logp(&self, logit: f32) -> f32 {
        ((f64::from(logit) - f64::from(self.max)) / self.temperature - self.log_sum) as f32
    }

    /// What a logit divided by T exceeds its log-probability by, in nats.
    pub(crate) fn normaliser(&self) -> f64 {
        f64::from(self.max) / self.temperature + self.log_sum
    }

    /// In nats.
    pub(crate) fn entropy(&self) -> f64 {
        self.entropy
    }

    /// Adds to `gradient` the derivatives of picked log-probabilities by the row's logits,
    /// sum over picks of g (onehot - p) / T. A pick is a place in the row and the gradient g of its log-probability.
    #[expect(clippy::cast_possible_truncation, reason = "gradients of f32 are f32")]
    pub(crate) fn add_gradient(&self, row: &Row<'_>, picks: &[(usize, f64)], gradient: &mut [f32]) {
        let all: f64 = picks.iter().map(|(_, g)| g).sum();
        let factor = (-all / (self.temperature * self.sum)) as f32;
        for (chunk, gradient) in gradient.chunks_mut(CHUNK).enumerate() {
            let weights = self.weights(row, chunk);
            vectorised!(add_scaled(&weights, factor, gradient));
        }
        for (place, g) in picks {
            gradient[*place] += (g / self.temperature) as f32;
        }
    }
}

fn total(parts: &[f32; LANES]) -> f64 {
    parts.iter().map(|&part| f64::from(part)).sum()
}

#[target_feature(enable = "avx2,fma")]
fn fill_weights(weights: &mut [f32], logits: &[f32], of: Weights) {
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = exp((logit - of.max) * of.factor);
    }
}

/// The parts of sum w and of sum w (l - max), where a weight of 0 has no part.
#[target_feature(enable = "avx2,fma")]
fn sums_of(logits: &[f32], of: Weights) -> ([f32; LANES], [f32; LANES]) {
    let (mut sums, mut distances) = ([0.0; LANES], [0.0; LANES]);
    for group in logits.as_chunks::<LANES>().0 {
        for n in 0..LANES {
            let distance = group[n] - of.max;
            let weight = exp(distance * of.factor);
            sums[n] += weight;
            distances[n] += if weight > 0.0 { weight * distance } else { 0.0 };
        }
    }
    (sums, distances)
}

#[target_feature(enable = "avx2,fma")]
fn add_scaled(weights: &[f32; CHUNK], factor: f32, gradient: &mut [f32]) {
    for (gradient, weight) in gradient.iter_mut().zip(weights) {
        *gradient = weight.mul_add(factor, *gradient);
    }
}

#[cfg(test)]
pub(crate) mod tests;
