//! Faster decoding (Fast-dLLM, Wu et al., arXiv 2505.22618): what is kept from pass to pass, how many
//! tokens a pass writes, and what either goes with. Both are off where a run file leaves them out.

use serde::{Deserialize, Serialize};

use super::fit::{Misfit, ensure};
use super::{PositionRule, RunConfig, defaults};
use crate::digest::Real;
use crate::stage::Sampler;

/// Keys and values that the passes of a block take over from the block's first pass, which computes
/// all. What is kept grows stale as the block is written: an approximation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    bincode::Encode,
)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// None: every pass computes the whole sequence; the default.
    #[default]
    None,
    /// Those of the positions before the block.
    Prefix,
    /// Those of all positions outside the block.
    Dual,
}

impl Cache {
    /// The name in run files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix => "prefix",
            Self::Dual => "dual",
        }
    }
}

impl std::fmt::Display for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl PositionRule {
    /// The name in run files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::LowConfidence => "low-confidence",
            Self::Entropy => "entropy",
        }
    }
}

impl std::fmt::Display for PositionRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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

impl RunConfig {
    /// How the run's evaluations sample at so many unmask steps: greedily.
    pub fn evaluation_sampler(&self, steps: u32) -> Sampler {
        let evaluation = &self.evaluation;
        Sampler {
            completion_tokens: self.evaluation_completion_tokens(),
            block_tokens: self.evaluation_block_tokens(),
            steps,
            temperature: defaults::zero(),
            top_k: 0,
            top_p: defaults::one(),
            position: evaluation.position,
            guidance: evaluation.guidance,
            cache: evaluation.cache,
            threshold: evaluation.threshold,
        }
    }
}

impl Sampler {
    /// Whether cache and threshold go with the other settings.
    pub fn fits(&self, keys: &SamplerKeys) -> Result<(), Misfit> {
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
