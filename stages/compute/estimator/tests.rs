//! Tests the claims of estimators on a toy small enough to enumerate: three real tokens and a mask, a policy in f64,
//! completions of three or four tokens. This file has the toy, the modules have the claims.

use agrpo_spec::{
    EstimatorConfig, EstimatorKind, Family, Horizon, ModelShape, PositionRule, Sampler, Samples,
    Seed, StepWeights, Strata,
};
use tch::{Kind, Tensor, no_grad_guard};

use super::unit::{Event, Factor, Read, Support, Surrogate, Unit};
use super::*;
use super::{batch::count, pass::Pass};
use crate::model::{ModelConfig, Policy};
use crate::sampler::{Row, sample};
use crate::tensors::length;
use crate::testing::{config, real, sampler};
use crate::threads::Threads;

mod biased;
mod by_sample;
mod checkpointing;
mod enumeration;
mod families;
mod monte_carlo;
mod packing;
mod ratios;
mod token_means;
mod unbiased;

/// Ids: two tokens of content, end-of-sequence, the mask.
const EOS: i64 = 2;
const MASK: i64 = 3;
const PROMPT: [i64; 2] = [1, 0];

/// A policy in f32 whose distributions are far from uniform.
fn single(seed: u64) -> Policy {
    drawn(seed, EOS)
}

fn drawn(seed: u64, eos: i64) -> Policy {
    drawn_of(Family::Llada, seed, eos, 0)
}

/// One of a family, which attends in blocks of so many tokens if it attends in blocks.
fn drawn_of(family: Family, seed: u64, eos: i64, block: u32) -> Policy {
    crate::use_one_thread();
    let of_family = crate::testing::shape_of(family, 0.6);
    let shape = ModelShape {
        attention_block: of_family.attention_block.map(|_| block),
        n_layers: 2,
        mlp_hidden_size: 12,
        rope_theta: real(100.0),
        ..of_family
    };
    Policy::draw(ModelConfig::new(&shape, 4, eos, MASK, 6), 0.6, Seed::new(seed)).unwrap()
}

/// The same in f64.
fn policy(seed: u64) -> Policy {
    single(seed).to_double()
}

/// One in f64 that never ends a completion and gives the mask no probability, so that distributions
/// over the whole vocabulary are the sampler's: of width 0, all tokens hold 3 and no block writes there;
/// the mask's logit is -100 times it.
fn policy_of_content(seed: u64) -> Policy {
    let policy = drawn(seed, i64::MAX).to_double();
    let first = |of: &Tensor, dim: i64, value: f64| {
        let of = of.copy();
        drop(of.narrow(dim, 0, 1).fill_(value));
        of
    };
    set_weights(&policy, "wte", |w| first(w, 1, 3.0));
    set_weights(&policy, "attn_out", |w| first(w, 0, 0.0));
    set_weights(&policy, ".ff_out", |w| first(w, 0, 0.0));
    set_weights(&policy, "transformer.ff_out", |w| {
        let w = w.copy();
        drop(w.narrow(0, MASK, 1).zero_().narrow(1, 0, 1).fill_(-100.0));
        w
    });
    policy
}

/// Takes all gradients as one vector, and clears them.
fn take_gradient(policy: &Policy) -> Tensor {
    let parts: Vec<Tensor> = policy.gradients().values().map(|g| g.flatten(0, -1)).collect();
    let all = Tensor::cat(&parts, 0).to_kind(Kind::Double);
    policy.zero_grad();
    all
}

/// The gradient of an estimate as one vector.
fn gradient_of(
    estimator: &Estimator<'_>,
    policies: &Policies<'_>,
    config: &EstimatorConfig,
) -> Tensor {
    let estimate = accumulate(estimator, policies, config, &Threads::one()).unwrap();
    Tensor::from_slice(&estimate.flat().unwrap())
}

fn norm(vector: &Tensor) -> f64 {
    vector.norm().double_value(&[])
}

/// |found - expected| / |expected|.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    norm(&(found - expected)) / norm(expected)
}

/// The same after the scalar that fits best: the sine of the angle between the two.
fn relative_rescaled(found: &Tensor, expected: &Tensor) -> f64 {
    let scale = found.dot(expected).double_value(&[]) / norm(found).powi(2);
    relative(&(found * scale), expected)
}

/// Sets weights whose name holds `part` to what `value` makes of them.
fn set_weights(policy: &Policy, part: &str, value: impl Fn(&Tensor) -> Tensor) {
    let _no_grad = no_grad_guard();
    for (name, mut weight) in policy.parameters() {
        if name.contains(part) {
            let new = value(&weight);
            weight.copy_(&new);
        }
    }
}
