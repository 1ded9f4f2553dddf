//! Which rollouts an estimator can learn from: asked of a run file before anything is computed, of a
//! gradient's spec before its inputs are read, and of an estimator before it is measured.

use super::{Cache, EstimatorConfig, EstimatorKind, PositionRule, SamplerKeys, Samples};
use crate::stage::Sampler;

/// A setting that an estimator does not go with, by its key in the run file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {found}: {expected}")]
pub struct Misfit {
    /// With its section, as in `estimator.k`.
    pub key: &'static str,
    /// The value as written.
    pub found: String,
    /// What would be accepted.
    pub expected: String,
}

impl EstimatorConfig {
    /// Whether it is what its name says on trajectories of this sampler.
    pub fn fits(&self, sampler: &Sampler) -> Result<(), Misfit> {
        self.samples_fit(sampler)?;
        let blocks = sampler.completion_tokens.checked_div(sampler.block_tokens).unwrap_or(0);
        let whole = blocks > 0
            && sampler.completion_tokens.is_multiple_of(sampler.block_tokens)
            && sampler.steps > 0
            && sampler.steps.is_multiple_of(blocks)
            && sampler.completion_tokens.is_multiple_of(sampler.steps);
        let tokens = sampler.completion_tokens;
        ensure(whole, "rollout.steps", sampler.steps, || {
            format!(
                "expected a multiple of the blocks that divides rollout.completion_tokens = {tokens}"
            )
        })?;
        ensure(
            sampler.temperature.get() > 0.0,
            "rollout.temperature",
            sampler.temperature,
            || "expected a number above 0: greedy rollouts have no policy gradient".to_owned(),
        )?;
        ensure(sampler.guidance.get() == 0.0, "rollout.guidance", sampler.guidance, || {
            "expected 0: with guidance, tokens are not drawn from the policy".to_owned()
        })?;
        ensure(
            self.kind != EstimatorKind::ArGrpo || sampler.block_tokens == 1,
            "rollout.block_tokens",
            sampler.block_tokens,
            || {
                "expected 1: estimator.kind = \"ar-grpo\" writes tokens from left to right"
                    .to_owned()
            },
        )?;
        sampler.fits(&SamplerKeys::ROLLOUT)?;
        let steps_vary = sampler.threshold.is_some();
        let threshold = sampler.threshold.map_or_else(String::new, |value| value.to_string());
        ensure(
            self.kind != EstimatorKind::MergedStep || !steps_vary,
            "rollout.threshold",
            &threshold,
            || {
                "expected no threshold: estimator.kind = \"merged-step\" cuts trajectories of equally many steps"
                    .to_owned()
            },
        )?;
        self.positions_fit(sampler)
    }

    fn samples_fit(&self, sampler: &Sampler) -> Result<(), Misfit> {
        let (kind, steps) = (self.kind, sampler.steps);
        let (most, expected) = match (self.k, kind) {
            (Samples::All, EstimatorKind::Agrpo | EstimatorKind::ArGrpo) => return Ok(()),
            (Samples::All, _) => {
                let expected = format!("expected a number: {kind} has no exact sum over steps");
                return ensure(false, "estimator.k", "\"all\"", || expected);
            }
            (_, EstimatorKind::MergedStep) => {
                (steps, format!("expected 1 to rollout.steps = {steps} segments"))
            }
            _ => (65_536, "expected an integer from 1 to 65536".to_owned()),
        };
        let is_within = matches!(self.k, Samples::Count(k) if (1..=most).contains(&k));
        ensure(is_within, "estimator.k", self.k, || expected)
    }

    fn positions_fit(&self, sampler: &Sampler) -> Result<(), Misfit> {
        let key = "estimator.position_gradient";
        let is_read =
            self.kind == EstimatorKind::Agrpo && sampler.position == PositionRule::LowConfidence;
        ensure(!self.position_gradient || is_read, key, true, || {
            "expected false: only agrpo in rollout.position = \"low-confidence\" has such a term"
                .to_owned()
        })?;
        let is_unfiltered = sampler.top_k == 0 && sampler.top_p.get() == 1.0;
        ensure(!self.position_gradient || is_unfiltered, key, true, || {
            "expected rollout.top_k = 0 and rollout.top_p = 1: what was kept at positions that lost is not recorded"
                .to_owned()
        })?;
        let is_plain = sampler.cache == Cache::None && sampler.threshold.is_none();
        ensure(!self.position_gradient || is_plain, key, true, || {
            "expected rollout.cache = \"none\" and no rollout.threshold: the term is that of a fixed number of exact tokens a step"
                .to_owned()
        })
    }
}

pub(super) fn ensure(
    holds: bool,
    key: &'static str,
    found: impl ToString,
    expected: impl FnOnce() -> String,
) -> Result<(), Misfit> {
    if holds {
        return Ok(());
    }
    Err(Misfit { key, found: found.to_string(), expected: expected() })
}
