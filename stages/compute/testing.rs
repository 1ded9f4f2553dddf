//! Settings for the tests of several modules, in which every value is explicit and nothing is filtered or drawn by
//! chance. A test changes what it is about. No policies, no trajectories.

use agrpo_spec::{Cache, EstimatorConfig, EstimatorKind, PositionRule, Real, Sampler};

pub(crate) fn real(value: f64) -> Real {
    Real::new(value).unwrap()
}

/// `steps` steps for `tokens` tokens in blocks of `block`.
pub(crate) fn sampler(tokens: u32, block: u32, steps: u32, position: PositionRule) -> Sampler {
    Sampler {
        completion_tokens: tokens,
        block_tokens: block,
        steps,
        temperature: real(1.0),
        top_k: 0,
        top_p: real(1.0),
        position,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

/// The unbiased choices: every step, a constant divisor.
pub(crate) fn config(kind: EstimatorKind) -> EstimatorConfig {
    EstimatorConfig { micro_batch: 256, ..EstimatorConfig::plain(kind) }
}
