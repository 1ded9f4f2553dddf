//! Which settings of a sampler can be combined, and which rollouts an estimator can learn from.
//!
//! Checked for a run file before anything is computed, for a gradient's spec before its inputs are read, and for
//! an estimator before it is measured.

use super::estimator::{EstimatorConfig, EstimatorKind, Samples};
use super::sampler::{Cache, PositionRule, Sampler};
use crate::digest::Real;

/// A setting that cannot be combined with the others, by its key in the run file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {found}: {expected}")]
pub struct Incompatible {
    /// With its section, as in `estimator.k`.
    pub key: &'static str,
    /// The value as written.
    pub found: String,
    /// What would be accepted.
    pub expected: String,
}

impl EstimatorConfig {
    /// Whether the estimator is what its name says on trajectories of this sampler.
    pub fn fits(&self, sampler: &Sampler) -> Result<(), Incompatible> {
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

    fn samples_fit(&self, sampler: &Sampler) -> Result<(), Incompatible> {
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

    fn positions_fit(&self, sampler: &Sampler) -> Result<(), Incompatible> {
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

/// The keys of a sampler's settings where a person wrote them, so that errors name what stands there.
#[derive(Clone, Copy, Debug)]
pub struct SamplerKeys {
    threshold: &'static str,
    steps: &'static str,
    position: &'static str,
    guidance: &'static str,
}

macro_rules! sampler_keys {
    ($section:literal) => {
        SamplerKeys {
            threshold: concat!($section, ".threshold"),
            steps: concat!($section, ".steps"),
            position: concat!($section, ".position"),
            guidance: concat!($section, ".guidance"),
        }
    };
}

impl SamplerKeys {
    /// In `[rollout]`.
    pub const ROLLOUT: Self = sampler_keys!("rollout");
    /// In `[evaluation]`.
    pub const EVALUATION: Self = sampler_keys!("evaluation");
    /// In a spec.
    pub const SPEC: Self = sampler_keys!("sampler");
}

impl Sampler {
    /// Whether cache and threshold can be combined with the other settings.
    pub fn fits(&self, keys: &SamplerKeys) -> Result<(), Incompatible> {
        let guidance = self.guidance;
        ensure(
            self.cache == Cache::None || guidance.get() == 0.0,
            keys.guidance,
            guidance,
            || format!("expected 0: cache = \"{}\" goes with no guidance", self.cache),
        )?;
        let Some(threshold) = self.threshold else { return Ok(()) };
        ensure(is_share(threshold), keys.threshold, threshold, || {
            "expected a number above 0 and up to 1".to_owned()
        })?;
        let is_by_confidence = self.position == PositionRule::LowConfidence;
        ensure(is_by_confidence, keys.position, format!("\"{}\"", self.position), || {
            "expected \"low-confidence\": a threshold is one of confidence".to_owned()
        })?;
        let tokens = self.completion_tokens;
        ensure(self.steps == tokens, keys.steps, self.steps, || {
            format!(
                "expected the {tokens} tokens of a completion: with a threshold a step writes one token or more, so this is the most steps that there can be"
            )
        })
    }
}

fn is_share(threshold: Real) -> bool {
    threshold.get() > 0.0 && threshold.get() <= 1.0
}

fn ensure(
    holds: bool,
    key: &'static str,
    found: impl ToString,
    expected: impl FnOnce() -> String,
) -> Result<(), Incompatible> {
    if holds {
        return Ok(());
    }
    Err(Incompatible { key, found: found.to_string(), expected: expected() })
}

#[cfg(test)]
mod tests {
    use crate::{Cache, EstimatorKind, Real, Run, RunConfig};

    /// A run in which everything is written out, and what a change makes of it.
    fn changed(change: impl Fn(&mut RunConfig)) -> Result<Run, String> {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let mut config = Run::parse(smoke).unwrap().config().clone();
        change(&mut config);
        Run::resolve(config).map_err(|error| error.to_string())
    }

    fn refused(change: impl Fn(&mut RunConfig)) -> String {
        changed(change).unwrap_err()
    }

    #[test]
    fn a_cache_and_a_threshold_are_keys_of_both_sections_and_off_by_default() {
        let plain = changed(|_| ()).unwrap();
        let rollout = &plain.config().rollout;
        assert_eq!((rollout.cache, rollout.threshold), (Cache::None, None));
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let written = smoke
            .replace("# threshold", "threshold")
            .replacen("cache = \"none\"", "cache = \"prefix\"", 1)
            .replace("cache = \"none\"", "cache = \"dual\"");
        let run = Run::parse(&written).unwrap();
        let (rollout, evaluation) = (&run.config().rollout, &run.config().evaluation);
        let threshold = Real::new(0.9);
        assert_eq!((rollout.cache, rollout.threshold), (Cache::Prefix, threshold));
        assert_eq!((evaluation.cache, evaluation.threshold), (Cache::Dual, threshold));
        assert_ne!(run.id(), plain.id());
    }

    #[test]
    fn what_they_do_not_go_with_is_named() {
        let real = |value| Real::new(value).unwrap();
        let sure = Real::new(0.9);
        let all = [
            refused(|c| c.rollout.threshold = Real::new(0.0)),
            refused(|c| (c.rollout.threshold, c.rollout.steps) = (sure, 4)),
            refused(|c| {
                c.rollout.threshold = sure;
                c.rollout.position = crate::PositionRule::Random;
            }),
            refused(|c| (c.evaluation.threshold, c.evaluation.steps) = (sure, vec![8, 4])),
            refused(|c| (c.evaluation.cache, c.evaluation.guidance) = (Cache::Dual, real(1.0))),
            refused(|c| {
                (c.rollout.threshold, c.estimator.kind) = (sure, EstimatorKind::MergedStep);
            }),
            refused(|c| (c.rollout.threshold, c.estimator.position_gradient) = (sure, true)),
            refused(|c| (c.rollout.cache, c.estimator.position_gradient) = (Cache::Prefix, true)),
        ];
        insta::assert_snapshot!(all.join("\n"), @r#"
        rollout.threshold = 0: expected a number above 0 and up to 1
        rollout.steps = 4: expected the 8 tokens of a completion: with a threshold a step writes one token or more, so this is the most steps that there can be
        rollout.position = "random": expected "low-confidence": a threshold is one of confidence
        evaluation.steps = 4: expected the 8 tokens of a completion: with a threshold a step writes one token or more, so this is the most steps that there can be
        evaluation.guidance = 1: expected 0: cache = "dual" goes with no guidance
        rollout.threshold = 0.9: expected no threshold: estimator.kind = "merged-step" cuts trajectories of equally many steps
        estimator.position_gradient = true: expected rollout.cache = "none" and no rollout.threshold: the term is that of a fixed number of exact tokens a step
        estimator.position_gradient = true: expected rollout.cache = "none" and no rollout.threshold: the term is that of a fixed number of exact tokens a step
        "#);
    }
}
