//! How units become a loss. A *pass* is as many units as fit a forward and backward pass; passes are computed side by
//! side, each with a gradient of its own, and one is in memory for each thread. For a factor f with advantage A and weight w,
//! ```text
//! lp_f = sum over its reads of c log P_theta(event | state),   rho = exp(lp_f - old_f)
//! loss = sum over f of w [ -min(rho A, clip(rho, 1-lo, 1+hi) A) + beta s (e^D - D - 1) ],
//!        D = lp_f of the reference - lp_f,  s = rho or 1
//! ```
//! (Schulman et al., PPO, arXiv 1707.06347; k3: J. Schulman, "Approximating KL Divergence", 2020; the
//! factor rho on it: DeepSeek-V3.2, arXiv 2512.02556.) Draws nothing, and checks nothing that `Batch` has
//! checked.

use std::collections::BTreeMap;

use agrpo_spec::{Checkpointing, EstimatorConfig};
use tch::{Kind, Tensor, no_grad_guard};

use super::batch::count;
use super::reads::{Forward, Reads};
use super::unit::{Estimator, Factor, Surrogate, Unit};
use crate::error::Result;
use crate::model::{Policy, Queries, Tape, padding};
use crate::tensors::{self, NamedTensors, numbers, upload};
use crate::threads::Threads;

/// The policies of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a> {
    /// The one that is differentiated.
    pub policy: &'a Policy,
    /// The one that sampled; `None` where it is the same.
    pub behaviour: Option<&'a Policy>,
    /// The one that the divergence is measured from.
    pub reference: Option<&'a Policy>,
}

/// Measurements of passes beside their loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// The divergence's share of it, before beta.
    pub kl: f64,
    /// The number of ratios.
    pub factors: f64,
    /// How many of them were clipped from below with effect (A < 0).
    pub clipped_low: f64,
    /// How many of them were clipped from above with effect (A > 0).
    pub clipped_high: f64,
    /// Distinct states that were computed.
    pub states: f64,
    /// Largest |rho - 1|; 0 where learner and sampler agree to the bit.
    pub ratio_deviation: f64,
}

impl Measured {
    pub(crate) fn add(&mut self, pass: &Self) {
        self.loss += pass.loss;
        self.kl += pass.kl;
        self.factors += pass.factors;
        self.clipped_low += pass.clipped_low;
        self.clipped_high += pass.clipped_high;
        self.states += pass.states;
        self.ratio_deviation = self.ratio_deviation.max(pass.ratio_deviation);
    }
}

/// What a pass measured, on the policy's device: it is read when all passes are queued, so that none waits.
pub(super) struct Pending {
    /// loss, kl, clipped, clipped_low, ratio_deviation; 5, f64.
    numbers_5: Tensor,
    factors: f64,
    states: f64,
}

impl Pending {
    /// The sums over passes, in their order.
    fn sum(all: &[Self]) -> Result<Measured> {
        let mut sum = Measured::default();
        if all.is_empty() {
            return Ok(sum);
        }
        let rows: Vec<&Tensor> = all.iter().map(|pass| &pass.numbers_5).collect();
        let read: Vec<f64> = numbers(&Tensor::stack(&rows, 0))?;
        for (pass, row) in all.iter().zip(read.as_chunks().0) {
            let [loss, kl, clipped, clipped_low, ratio_deviation] = *row;
            sum.add(&Measured {
                loss,
                kl,
                factors: pass.factors,
                clipped_low,
                clipped_high: clipped - clipped_low,
                states: pass.states,
                ratio_deviation,
            });
        }
        Ok(sum)
    }
}

/// Up to a micro-batch of distinct states, with the factors that are read from them.
#[derive(Debug, Default)]
pub(super) struct Pass {
    reads: Reads,
    factors: Vec<Factor>,
}

impl Pass {
    /// The units of these numbers together.
    pub(super) fn of(estimator: &Estimator<'_>, units: &[usize]) -> Self {
        let mut pass = Self::default();
        units.iter().for_each(|&number| pass.push((estimator.unit)(number)));
        pass
    }

    pub(super) fn push(&mut self, unit: Unit) {
        let numbers: Vec<_> =
            unit.states.into_iter().map(|state| self.reads.states.number(state)).collect();
        for factor in unit.factors {
            let place = self.factors.len();
            for read in &factor.reads {
                self.reads.add(place, numbers[read.state], read);
            }
            self.factors.push(Factor { reads: vec![], ..factor });
        }
    }

    /// The log-probability and the entropy at each read, in their order; no gradient.
    pub(super) fn observe(&self, policy: &Policy, temperature: f64) -> Result<Vec<(f64, f64)>> {
        let _no_grad = no_grad_guard();
        let forward = &mut |ids: &_, queries: &_| policy.hidden(ids, queries);
        let seen = self.reads.evaluate(policy, temperature, forward)?;
        let logp_N = numbers(&seen.value_N)?;
        let entropy_N = self.reads.entropy(&seen, temperature)?;
        Ok(logp_N.into_iter().zip(entropy_N).collect())
    }

    /// Adds the gradient of the pass's share of the loss to the policy's. `checkpointing` trades time for
    /// memory; the gradient is the same to the bit.
    pub(super) fn backward(
        &self,
        policies: &Policies<'_>,
        surrogate: &Surrogate,
        checkpointing: bool,
    ) -> Result<Pending> {
        let mut tape = None;
        let mut forward = |ids: &Tensor, queries: &Queries| {
            if !checkpointing {
                return policies.policy.hidden(ids, queries);
            }
            let (hidden, way_back) = policies.policy.hidden_checkpointed(ids, queries)?;
            tape = Some(way_back);
            Ok(hidden)
        };
        let (loss, measured) = self.loss(&mut forward, policies, surrogate)?;
        loss.backward();
        drop(loss);
        tape.into_iter().for_each(Tape::backward);
        Ok(measured)
    }

    /// The pass's share of the loss, differentiable, and what it measured.
    fn loss(
        &self,
        forward: &mut Forward<'_>,
        policies: &Policies<'_>,
        surrogate: &Surrogate,
    ) -> Result<(Tensor, Pending)> {
        let seen = self.reads.evaluate(policies.policy, surrogate.temperature, forward)?;
        let logp_F = self.reads.sums(&seen.value_N, self.factors.len());
        drop(seen);
        let column = |of: &dyn Fn(&Factor) -> f64| {
            let values: Vec<f64> = self.factors.iter().map(of).collect();
            upload(&Tensor::from_slice(&values).to_kind(logp_F.kind()), logp_F.device())
        };
        let old_F = self.old(policies, surrogate, &logp_F)?;
        let (advantage_F, weight_F) = (column(&|f| f.advantage), column(&|f| f.weight));
        let ratio_F = (&logp_F - old_F).exp();
        let bounded_F = ratio_F.clamp(1.0 - surrogate.clip_low, 1.0 + surrogate.clip_high);
        let (plain_F, bounded_F) = (&ratio_F * &advantage_F, bounded_F * &advantage_F);
        let mut loss_F = -plain_F.minimum(&bounded_F) * &weight_F;
        let mut kl = Tensor::zeros([], (Kind::Double, logp_F.device()));
        if let (true, Some(reference)) = (surrogate.kl > 0.0, policies.reference) {
            let reference_F = {
                let _no_grad = no_grad_guard();
                self.log_probabilities(reference, surrogate)?
            };
            let apart_F = reference_F - &logp_F;
            let k3_F = apart_F.exp() - &apart_F - 1.0;
            let k3_F = if surrogate.kl_ratio { &ratio_F * k3_F } else { k3_F };
            let divergence_F = k3_F * &weight_F * column(&|f| f64::from(u8::from(f.has_kl)));
            kl = divergence_F.detach().sum(Kind::Double);
            loss_F += divergence_F * surrogate.kl;
        }
        let loss = loss_F.sum(logp_F.kind());
        let clipped_F = bounded_F.lt_tensor(&plain_F);
        let low_F = clipped_F.logical_and(&advantage_F.lt(0.0));
        let sum = |t: &Tensor| t.to_kind(Kind::Double).sum(Kind::Double);
        let deviation = (ratio_F.detach() - 1.0).abs().max().to_kind(Kind::Double);
        let whole = loss.detach().to_kind(Kind::Double);
        let measured = Pending {
            numbers_5: Tensor::stack(&[whole, kl, sum(&clipped_F), sum(&low_F), deviation], 0),
            factors: count(self.factors.len()),
            states: count(self.reads.states()),
        };
        Ok((loss, measured))
    }

    /// lp of every factor, F.
    pub(super) fn log_probabilities(
        &self,
        policy: &Policy,
        surrogate: &Surrogate,
    ) -> Result<Tensor> {
        let forward = &mut |ids: &_, queries: &_| policy.hidden(ids, queries);
        let value_N = self.reads.evaluate(policy, surrogate.temperature, forward)?.value_N;
        Ok(self.reads.sums(&value_N, self.factors.len()))
    }

    /// lp of every factor under the policy that sampled, F: as recorded, else computed; the value itself where
    /// the same policy sampled.
    fn old(
        &self,
        policies: &Policies<'_>,
        surrogate: &Surrogate,
        logp_F: &Tensor,
    ) -> Result<Tensor> {
        let recorded: Vec<f64> = self.factors.iter().map(|f| f.old.unwrap_or(f64::NAN)).collect();
        let recorded_F = Tensor::from_slice(&recorded).to_kind(logp_F.kind());
        let recorded_F = upload(&recorded_F, logp_F.device());
        if recorded.iter().all(|old| old.is_finite()) {
            return Ok(recorded_F);
        }
        let _no_grad = no_grad_guard();
        let computed_F = match policies.behaviour {
            Some(behaviour) => self.log_probabilities(behaviour, surrogate)?,
            None => logp_F.detach(),
        };
        Ok(computed_F.where_self(&recorded_F.isnan(), &recorded_F))
    }
}

/// The gradient of a batch's loss.
#[derive(Debug)]
pub struct Estimate {
    /// By the parameters' names, in their shapes, in f32 or f64; zero where the loss does not depend on one.
    pub gradient: BTreeMap<String, Tensor>,
    /// The sums of what the passes measured.
    pub measured: Measured,
}

impl Estimate {
    /// The gradient in one vector, in the order of names, in double precision.
    pub fn flat(&self) -> Result<Vec<f64>> {
        let parts = self.gradient.values().map(numbers::<f64>);
        Ok(parts.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// The estimate, computed pass by pass: each of up to `micro_batch` distinct states, with or without `checkpointing`,
/// which takes `auto` for true.
/// Every pass has a gradient of its own, and they are added in the order of passes, so that the sum is the same for any
/// number of threads.
pub fn accumulate(
    estimator: &Estimator<'_>,
    policies: &Policies<'_>,
    config: &EstimatorConfig,
    threads: &Threads,
) -> Result<Estimate> {
    let passes = passes(estimator, config.micro_batch as usize, policies.policy.pads());
    let checkpointing = config.checkpointing != Checkpointing::Never;
    let handles = |policy: Option<&Policy>| policy.map(Policy::handles);
    let state =
        || (policies.policy.handles(), [policies.behaviour, policies.reference].map(handles));
    let (mut gradient, mut measured) = (NamedTensors::new(), vec![]);
    threads.in_order(
        passes.len(),
        state,
        |(policy, [behaviour, reference]), pass| {
            // Leaves of its own on the same memory.
            let policy = policy.handles();
            policy.require_grad();
            let policies = Policies {
                policy: &policy,
                behaviour: behaviour.as_ref(),
                reference: reference.as_ref(),
            };
            let pass = Pass::of(estimator, &passes[pass]);
            let pending = pass.backward(&policies, &estimator.surrogate, checkpointing)?;
            // Gradients of half precision are summed in f32.
            let wide = |(name, of): (String, Tensor)| (name, of.to_kind(single(of.kind())));
            Ok((policy.gradients().into_iter().map(wide).collect(), pending))
        },
        |_, (own, pending)| {
            tensors::add(&mut gradient, own);
            measured.push(pending);
            Ok(())
        },
    )?;
    if passes.is_empty() {
        let zeros = policies.policy.handles().gradients().into_iter();
        gradient = zeros.map(|(name, of)| (name, of.to_kind(single(of.kind())))).collect();
    }
    Ok(Estimate { gradient, measured: Pending::sum(&measured)? })
}

/// The kind in which gradients are summed.
fn single(kind: Kind) -> Kind {
    if kind == Kind::Double { kind } else { Kind::Float }
}

/// The units in their order, packed into passes: one unit, and more as long as a pass has no more distinct states
/// than a micro-batch. Where passes take no padding, states of one length make a pass, and units are in the order of
/// their padding first. A pass is the numbers of its units, which are made again where it is computed.
pub(super) fn passes(
    estimator: &Estimator<'_>,
    micro_batch: usize,
    may_pad: bool,
) -> Vec<Vec<usize>> {
    let skipped = |number| {
        if may_pad {
            return 0;
        }
        (estimator.unit)(number).states.first().map_or(0, |state| padding(state))
    };
    let skipped: Vec<usize> = (0..estimator.units).map(skipped).collect();
    let mut order: Vec<usize> = (0..estimator.units).collect();
    order.sort_by_key(|&number| skipped[number]);
    let (mut passes, mut reads) = (Vec::<Vec<usize>>::new(), Reads::default());
    for number in order {
        let unit = (estimator.unit)(number);
        let joins = |pass: &&mut Vec<usize>| {
            let is_as_long = skipped[pass[0]] == skipped[number];
            is_as_long && reads.states_with(&unit) <= micro_batch
        };
        match passes.last_mut().filter(joins) {
            Some(pass) => pass.push(number),
            None => {
                passes.push(vec![number]);
                reads = Reads::default();
            }
        }
        for state in unit.states {
            reads.states.number(state);
        }
    }
    passes
}
