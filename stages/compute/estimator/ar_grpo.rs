//! GRPO in autoregressive order (JustGRPO, arXiv 2601.15165): rollouts write one token at a time from
//! left to right (`rollout.block_tokens = 1`), so that the likelihood is the chain rule's.
//!
//! ```text
//! loss = -1/(C M) sum over rows, t of min(rho_t A, clip(rho_t) A),   log pi(y_t) = log p(y_t | q, y_<t)
//! ```
//! with C the completion's length and M the completions whose advantage is not 0 (with a divergence, all
//! that are counted, as each has a term); tempered as sampled.
//! Published with every t (`k = "all"`); a number of k draws them uniformly.

use agrpo_spec::{EstimatorConfig, Horizon, Seed, StepWeights};

use super::agrpo::{in_order_of_states, step};
use super::batch::{Batch, count};
use super::timesteps::{self, Draw};
use super::unit::{Estimator, Surrogate, Unit};

/// The estimator on one batch.
#[derive(Debug)]
pub(super) struct ArGrpo<'a> {
    batch: &'a Batch<'a>,
    draws: Vec<Draw>,
    completions: f64,
    samples: usize,
    surrogate: Surrogate,
}

impl<'a> ArGrpo<'a> {
    /// Draws the timesteps.
    pub(super) fn new(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Self {
        let rows = batch.moving(config.kl.get() > 0.0);
        let config = EstimatorConfig {
            horizon: Horizon::Sampled,
            step_weights: StepWeights::Uniform,
            ..config.clone()
        };
        let mut draws = timesteps::draw(batch, &rows, &config, seed);
        let completions = count(rows.len());
        draws.iter_mut().for_each(|draw| draw.weight /= completions);
        let temperature = batch.sampler().temperature.get();
        let surrogate = Surrogate { temperature, ..Surrogate::untempered(&config) };
        let samples = draws.len();
        let draws = in_order_of_states(batch, draws);
        Self { batch, draws, completions, samples, surrogate }
    }
}

impl Estimator for ArGrpo<'_> {
    fn units(&self) -> usize {
        self.draws.len()
    }

    fn unit(&self, n: usize) -> Unit {
        step(self.batch, &self.draws[n])
    }

    fn surrogate(&self) -> Surrogate {
        self.surrogate
    }

    fn mean_over(&self) -> f64 {
        self.completions
    }

    fn samples(&self) -> usize {
        self.samples
    }
}
