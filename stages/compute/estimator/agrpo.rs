//! Amortized GRPO (Zhan, "Simple Policy Gradients for Reasoning with Diffusion Language Models",
//! arXiv 2510.04019): the likelihood of a trajectory is the product over its steps, and a few drawn
//! steps stand for all of them.
//!
//! A trajectory of T steps writes tokens x_j at steps o_j. With s_t the state before step t (written
//! tokens, else masks), advantage A and steps drawn as `timesteps.rs` says,
//! ```text
//! rho_j = p_theta(x_j | s_t) / p_old(x_j | s_t)                            for every j with o_j = t
//! loss  = -1/R sum over rows, draws of  w sum_j min(rho_j A, clip(rho_j, 1-lo, 1+hi) A)
//! ```
//! The distribution is the sampler's: its temperature, its kept sets, its forward code. R counts the
//! completions of the shard, also those left out because their terms are constant.
//!
//! # What the positions add
//!
//! The exact policy gradient has, for each step, the logarithm of `P(S, x_S | s_t)`: the chance that
//! the step writes the positions S, and these tokens. In random order S does not depend on theta, and
//! the sum over tokens is all. In order of entropy S is a function of theta and s_t, constant but
//! where two entropies are equal. **In low-confidence order it depends on the draws**: each masked
//! position j of the block draws a token y_j from p_j, independently, and the |S| positions with the
//! highest p_j(y_j) are written. So with kappa = min over S of p_j(x_j),
//! ```text
//! P(S, x_S | s_t) = prod over S of p_j(x_j)  *  prod over the others of F_j(kappa)
//! F_j(kappa)      = sum over tokens v with p_j(v) < kappa of p_j(v)
//! ```
//! because the others are passed over exactly when each draws something less probable than the least probable token
//! written. (On ties the position further left wins, so those to the right of kappa's holder may also equal it.) The
//! gradient of log F_j is the missing term; `position_gradient` adds it as one more ratio of the step, computed in the
//! same forward pass. Without it the estimate is that of another objective, and biased. Compare "Mask-Aware Policy
//! Gradients", arXiv 2607.15200.
//!
//! # What else is exact, and what is not
//!
//! * Drawn steps instead of all, in strata or not, weighted or not: unbiased, as every q is positive.
//! * Each token has its own ratio; at rho = 1 the gradient is that of the product.
//! * `horizon = "effective"` divides by a number of steps that depends on the actions and drops the
//!   steps after it; `"sampled"` does neither.
//! * top-k and top-p: the kept sets are held fixed; that they depend on theta is ignored.
//! * `rollout.cache`: p_old is what the cached pass drew from, as recorded, and p_theta is exact, so that rho
//!   corrects each token for what was stale, as far as it is not clipped; each state before a step is
//!   reached as the cached sampler reached it, which nothing corrects.
//! * `rollout.threshold`: a step writes as many tokens as were sure, and its loss sums over all of them.
//!   Which those are depends on the draws, as in low-confidence order, and has no term here.

use agrpo_spec::{EstimatorConfig, Seed};

use super::batch::Batch;
use super::timesteps::{self, Draw};
use super::unit::{Estimator, Event, Factor, Read, Support, Surrogate, Unit};
use crate::{dedup::Distinct, tensors::length};

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let mut draws = timesteps::draw(batch, &rows, config, seed);
    // A mean over all counted completions.
    draws.iter_mut().for_each(|draw| draw.weight /= batch.completions());
    with_draws(batch, config, draws)
}

/// The estimator for given timesteps, weighted for a sum over all draws.
pub fn with_draws<'a>(
    batch: &'a Batch<'a>,
    config: &EstimatorConfig,
    draws: Vec<Draw>,
) -> Estimator<'a> {
    let temperature = batch.sampler.temperature.get();
    let position_gradient = config.position_gradient;
    let samples = draws.len();
    let draws = in_order_of_states(batch, draws);
    Estimator {
        units: draws.len(),
        unit: Box::new(move |n| {
            let mut unit = step(batch, &draws[n]);
            if position_gradient {
                unit.factors.extend(positions(batch, &draws[n]));
            }
            unit
        }),
        surrogate: Surrogate { temperature, kl_ratio: true, ..Surrogate::untempered(config) },
        mean_over: batch.completions(),
        samples,
    }
}

/// The ratio of the step's choice of positions; `None` if no position was passed over.
fn positions(batch: &Batch<'_>, draw: &Draw) -> Option<Factor> {
    let p = batch.trajectories.prompt_len;
    let tokens = batch.trajectories.completion(draw.row);
    let written = batch.written(draw.row, draw.step);
    let winners: Vec<_> = written.map(|at| (length(p + at), tokens[at])).collect();
    let loses = |position| Read {
        state: 0,
        position: length(p + position),
        event: Event::Loses(winners.clone()),
        support: Support::AllBut(batch.mask()),
        coefficient: 1.0,
    };
    let reads: Vec<_> = batch.passed_over(draw.row, draw.step).map(loses).collect();
    let (advantage, weight) = (batch.advantage(draw.row), draw.weight);
    (!reads.is_empty()).then_some(Factor { reads, old: None, advantage, weight, has_kl: false })
}

/// One step of one trajectory: its state, and a ratio for each token that it wrote.
pub(super) fn step(batch: &Batch<'_>, draw: &Draw) -> Unit {
    let trajectories = batch.trajectories;
    let (p, c) = (trajectories.prompt_len, trajectories.completion_len);
    let factor = |position| {
        let cell = draw.row * c + position;
        let support = match trajectories.kept_at(cell) {
            Some(kept) => Support::Kept(kept.to_vec()),
            None => Support::AllBut(batch.mask()),
        };
        let event = Event::Token(trajectories.completion_ids[cell]);
        let position = length(p + position);
        Factor {
            reads: vec![Read { state: 0, position, event, support, coefficient: 1.0 }],
            old: batch.recorded_logp(cell),
            advantage: batch.advantage(draw.row),
            weight: draw.weight,
            has_kl: true,
        }
    };
    Unit {
        states: vec![batch.state(draw.row, draw.step)],
        factors: batch.written(draw.row, draw.step).map(factor).collect(),
    }
}

/// Draws of one step are merged, their weights added; draws of equal states follow one another, in
/// order of first appearance, so that a pass meets each state once.
fn in_order_of_states(batch: &Batch<'_>, draws: Vec<Draw>) -> Vec<Draw> {
    let mut distinct = Distinct::default();
    let mut numbered: Vec<(usize, Draw)> = draws
        .into_iter()
        .map(|draw| (distinct.number(batch.state(draw.row, draw.step)), draw))
        .collect();
    numbered.sort_by_key(|(number, draw)| (*number, draw.row, draw.step));
    let mut merged: Vec<Draw> = vec![];
    for (_, draw) in numbered {
        match merged.last_mut() {
            Some(last) if (last.row, last.step) == (draw.row, draw.step) => {
                last.weight += draw.weight;
            }
            _ => merged.push(draw),
        }
    }
    merged
}
