//! Amortized GRPO's loss (Zhan, "Simple Policy Gradients for Reasoning with Diffusion Language
//! Models", arXiv 2510.04019).
//!
//! A trajectory of T steps writes tokens x_j at steps o_j. With t drawn k times from its steps,
//! importance weight w, advantage A, and s_t the state before step t (written tokens, else masks):
//! ```text
//! rho_j = exp(log p_theta(x_j | s_t) - log p_old(x_j | s_t))               for every j with o_j = t
//! loss  = -1/(k R) sum over rows, samples of  w sum_j min(rho_j A, clip(rho_j, 1-lo, 1+hi) A)
//! ```
//! The distribution is the sampler's: same temperature, same kept sets, same forward code. R counts
//! all completions of the shard, also those left out below, so the gradient is a mean over the shard.
//!
//! Left out, exactly: rows whose advantage is 0 (their term is constant) and rows without a horizon.
//! Not here: drawing timesteps, clipping norms, stepping.

use std::collections::BTreeSet;

use agrpo_spec::StageError;
use tch::{Kind, Tensor};

use super::timesteps::Timesteps;
use crate::error::data;
use crate::model::{Policy, Queries};
use crate::states::DistinctStates;
use crate::trajectories::Trajectories;

/// How the ratio is clipped, and what the sampler divided its logits by.
#[derive(Clone, Copy, Debug)]
pub struct Surrogate {
    /// From below at 1 - clip_low.
    pub clip_low: f64,
    /// From above at 1 + clip_high.
    pub clip_high: f64,
    /// The sampler's temperature.
    pub temperature: f64,
}

/// What a pass measured beside its loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// The pass's share of the loss.
    pub loss: f64,
    /// Tokens trained on.
    pub tokens: f64,
    /// Of these, tokens whose ratio is clipped with effect (low for A < 0, high for A > 0).
    pub clipped: f64,
    /// Distinct states that were computed.
    pub states: f64,
    /// Largest |rho - 1|; 0 where learner and sampler agree to the bit.
    pub ratio_deviation: f64,
}

impl Measured {
    /// Adds another pass.
    pub fn add(&mut self, pass: &Self) {
        self.loss += pass.loss;
        self.states += pass.states;
        self.tokens += pass.tokens;
        self.clipped += pass.clipped;
        self.ratio_deviation = self.ratio_deviation.max(pass.ratio_deviation);
    }
}

/// One written token of one drawn step: a term of the sum.
#[derive(Clone, Debug)]
struct Term {
    /// Position in the sequence, prompt included.
    position: i64,
    token: i64,
    old_logp: f32,
    advantage: f64,
    weight: f64,
    kept: Option<Vec<i64>>,
}

/// Up to a micro-batch of distinct states, with the terms that are read off each.
#[derive(Debug)]
pub struct Pass {
    states: Vec<(Vec<i64>, Vec<Term>)>,
}

/// Sorts the terms of every drawn step by the state they belong to; equal states are one.
///
/// `rows` are row numbers of `trajectories`, `advantages` theirs, `timesteps` R x k over `rows`.
/// A pass takes up to `micro_batch` states.
pub fn passes(
    trajectories: &Trajectories,
    rows: &[usize],
    advantages: &[f64],
    timesteps: &Timesteps,
    mask: i64,
    micro_batch: usize,
) -> Vec<Pass> {
    let (p, c) = (trajectories.prompt_len, trajectories.completion_len);
    let mut distinct = DistinctStates::default();
    let mut terms: Vec<Vec<Term>> = vec![];
    for (n, (&t, &weight)) in timesteps.steps.iter().zip(&timesteps.weights).enumerate() {
        let (row, advantage) = (rows[n / timesteps.k], advantages[n / timesteps.k]);
        let number = distinct.number(trajectories.state(row, t, mask));
        terms.resize_with(terms.len().max(number + 1), Vec::new);
        for position in (0..c).filter(|&position| trajectories.steps(row)[position] == t) {
            let cell = row * c + position;
            terms[number].push(Term {
                position: length(p + position),
                token: trajectories.completion_ids[cell],
                old_logp: trajectories.token_logps[cell],
                advantage,
                weight,
                kept: trajectories.kept_at(cell).map(<[i64]>::to_vec),
            });
        }
    }
    let states: Vec<_> = distinct.states().iter().cloned().zip(terms).collect();
    states.chunks(micro_batch.max(1)).map(|chunk| Pass { states: chunk.to_vec() }).collect()
}

impl Pass {
    /// The pass's share of the loss, differentiable, and what it measured. `scale` is
    /// 1 / (k * completions of the shard).
    pub fn loss(
        &self,
        policy: &Policy,
        surrogate: Surrogate,
        scale: f64,
    ) -> Result<(Tensor, Measured), StageError> {
        let logp_N = self.log_probabilities(policy, surrogate.temperature)?;
        let column = |of: &dyn Fn(&Term) -> f64| {
            let values: Vec<f64> = self.terms().map(of).collect();
            Tensor::from_slice(&values).to_kind(Kind::Float)
        };
        let old_N = column(&|term| f64::from(term.old_logp));
        let advantage_N = column(&|term| term.advantage);
        let weight_N = column(&|term| term.weight);
        let ratio_N = (&logp_N - old_N).exp();
        let bounded_N = ratio_N.clamp(1.0 - surrogate.clip_low, 1.0 + surrogate.clip_high);
        let (plain_N, bounded_N) = (&ratio_N * &advantage_N, bounded_N * &advantage_N);
        let loss = (plain_N.minimum(&bounded_N) * weight_N).sum(Kind::Float) * -scale;
        let clipped = bounded_N.lt_tensor(&plain_N).to_kind(Kind::Double).sum(Kind::Double);
        let measured = Measured {
            loss: loss.double_value(&[]),
            states: count(self.states.len()),
            tokens: count(self.terms().count()),
            clipped: clipped.double_value(&[]),
            ratio_deviation: (ratio_N.detach() - 1.0).abs().max().double_value(&[]),
        };
        Ok((loss, measured))
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        self.states.iter().flat_map(|(_, terms)| terms)
    }

    /// log p_theta of each term's token under the sampler's distribution, N.
    fn log_probabilities(&self, policy: &Policy, temperature: f64) -> Result<Tensor, StageError> {
        let hidden_ND = self.hidden(policy)?;
        let v = policy.config().embedding_size;
        let scaled_NV = policy.head(&hidden_ND) / temperature;
        let impossible = self.impossible(policy)?;
        let logp_NV =
            scaled_NV.masked_fill(&impossible, f64::NEG_INFINITY).log_softmax(-1, Kind::Float);
        let tokens: Vec<i64> = self.terms().map(|term| term.token).collect();
        if tokens.iter().any(|token| !(0..v).contains(token)) {
            return Err(data("trajectories: a written id is no token"));
        }
        let token_N1 = Tensor::from_slice(&tokens).view([-1, 1]);
        Ok(logp_NV.gather(1, &token_N1, false).view([-1]))
    }

    /// Hidden states at each term's position, N x D: every state is queried at its own positions,
    /// padded to the longest list, and each term picks its row.
    fn hidden(&self, policy: &Policy) -> Result<Tensor, StageError> {
        let queried: Vec<BTreeSet<i64>> = self
            .states
            .iter()
            .map(|(_, terms)| terms.iter().map(|term| term.position).collect())
            .collect();
        let widest = queried.iter().map(BTreeSet::len).max().unwrap_or(0);
        let (mut ids, mut queries, mut picks) = (vec![], vec![], vec![]);
        for (n, ((state, terms), positions)) in self.states.iter().zip(&queried).enumerate() {
            let positions: Vec<i64> = positions.iter().copied().collect();
            let Some(&last) = positions.last() else {
                return Err(data("trajectories: a drawn step wrote no token"));
            };
            ids.extend_from_slice(state);
            picks.extend(terms.iter().map(|term| {
                let found = positions.binary_search(&term.position);
                length(n * widest + found.expect("every term's position is queried"))
            }));
            queries.extend((0..widest).map(|q| positions.get(q).copied().unwrap_or(last)));
        }
        let batch = length(self.states.len());
        let ids_BL = Tensor::from_slice(&ids).view([batch, -1]);
        let queries_BQ = Tensor::from_slice(&queries).view([batch, -1]);
        let hidden_BQD = policy.hidden(&ids_BL, &Queries::At(&queries_BQ))?;
        Ok(hidden_BQD.flatten(0, 1).index_select(0, &Tensor::from_slice(&picks)))
    }

    /// The tokens outside each term's kept set, broadcastable to N x V: without a filter the mask.
    fn impossible(&self, policy: &Policy) -> Result<Tensor, StageError> {
        let config = policy.config();
        let vocabulary = usize::try_from(config.embedding_size).expect("sizes are positive");
        let mut rows = vec![];
        for kept in self.terms().filter_map(|term| term.kept.as_ref()) {
            let start = rows.len();
            rows.resize(start + vocabulary, true);
            for &v in kept {
                let v = usize::try_from(v).ok().filter(|&v| v < vocabulary);
                rows[start + v.ok_or_else(|| data("trajectories: a kept id is no token"))?] = false;
            }
        }
        if rows.is_empty() {
            rows = vec![false; vocabulary];
            rows[usize::try_from(config.mask_token_id).expect("checked on loading")] = true;
        }
        Ok(Tensor::from_slice(&rows).view([-1, config.embedding_size]))
    }
}

fn length(n: usize) -> i64 {
    i64::try_from(n).expect("lengths and ids fit")
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are small")]
fn count(n: usize) -> f64 {
    n as f64
}
