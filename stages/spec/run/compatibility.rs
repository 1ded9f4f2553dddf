//! Which settings of a sampler can be combined, and which rollouts an estimator can learn from.
//!
//! Checked for a run file, for a gradient's spec before its inputs are read, and before an estimator is measured.

use super::error::{RunError, setting};
use super::estimator::{EstimatorConfig, Samples, StepEvery};
use super::kind::EstimatorKind;
use super::sampling::{Cache, Confidence, PositionRule, Sampler, allows_steps};
use crate::family::{AttendsTo, BlocksFrom, Family, FamilyTraits};

impl EstimatorConfig {
    /// Checks that the estimator is valid on trajectories of this sampler.
    pub fn check_sampler(&self, sampler: &Sampler) -> Result<(), RunError> {
        self.check_samples(sampler)?;
        let (tokens, block) = (sampler.completion_tokens, sampler.block_tokens);
        let is_whole = (1..=tokens).contains(&block) && tokens.is_multiple_of(block);
        setting("rollout.steps", sampler.steps).ensure(
            is_whole && allows_steps(tokens, block, sampler.steps),
            format!(
                "expected a multiple of the blocks that divides \
                 rollout.completion_tokens = {tokens}"
            ),
        )?;
        setting("rollout.temperature", sampler.temperature).ensure(
            sampler.temperature.get() > 0.0,
            "expected a number above 0: greedy rollouts have no policy gradient",
        )?;
        setting("rollout.guidance", sampler.guidance).ensure(
            sampler.guidance.get() == 0.0,
            "expected 0: with guidance, tokens are not drawn from the policy",
        )?;
        setting("rollout.block_tokens", block).ensure(
            self.kind != EstimatorKind::ArGrpo || block == 1,
            "expected 1: estimator.kind = \"ar-grpo\" writes tokens from left to right",
        )?;
        sampler.check("rollout")?;
        let threshold = sampler.threshold.map_or_else(String::new, |value| value.to_string());
        setting("rollout.threshold", threshold).ensure(
            self.kind != EstimatorKind::MergedStep || sampler.threshold.is_none(),
            "expected no threshold: estimator.kind = \"merged-step\" cuts trajectories \
             of equally many steps",
        )?;
        self.check_positions(sampler)?;
        self.check_steps()
    }

    /// Checks that the estimator is valid on trajectories of this family's models.
    pub fn check_family(&self, family: Family) -> Result<(), RunError> {
        let FamilyTraits { name, sampling, attends_to, .. } = family.traits();
        let kind = self.kind;
        setting("estimator.kind", format!("\"{kind}\"")).ensure(
            *attends_to != AttendsTo::Before
                || matches!(kind, EstimatorKind::Agrpo | EstimatorKind::ArGrpo),
            format!(
                "expected \"ar-grpo\" or \"agrpo\": {name} is autoregressive, and knows no mask"
            ),
        )?;
        setting("estimator.kind", "\"merged-step\"").ensure(
            self.kind != EstimatorKind::MergedStep
                || sampling.blocks_from == BlocksFrom::Completion,
            format!(
                "expected another kind: it cuts trajectories of equally many steps, and {name} counts blocks from the \
                 prompt, so that rows take different numbers of steps"
            ),
        )
    }

    /// Steps for every sample need samples, and one worker that sees every shard's.
    fn check_steps(&self) -> Result<(), RunError> {
        if self.step_every == StepEvery::Batch {
            return setting("estimator.accumulation_steps", self.accumulation_steps).ensure(
                self.accumulation_steps == 1,
                "expected 1: micro-batches are told apart by estimator.step_every = \"sample\" alone",
            );
        }
        let by_sample = || setting("estimator.step_every", "\"sample\"");
        by_sample().ensure(
            self.kind == EstimatorKind::Agrpo,
            format!("expected \"batch\": {} draws no samples of a timestep", self.kind),
        )?;
        by_sample().ensure(
            self.k != Samples::All,
            "expected \"batch\", or a number for estimator.k: \"all\" is a sum, not samples",
        )?;
        setting("estimator.fused_updates", self.fused_updates).ensure(
            self.fused_updates,
            "expected true, or no such key: with estimator.step_every = \"sample\" the steps of an \
             iteration are one stage",
        )
    }

    fn check_samples(&self, sampler: &Sampler) -> Result<(), RunError> {
        let (key, kind, steps) = ("estimator.k", self.kind, sampler.steps);
        let (most, expected) = match (self.k, kind) {
            (Samples::All, EstimatorKind::Agrpo | EstimatorKind::ArGrpo) => return Ok(()),
            (Samples::All, _) => {
                let expected = format!("expected a number: {kind} has no exact sum over steps");
                return setting(key, "\"all\"").ensure(false, expected);
            }
            (_, EstimatorKind::MergedStep) => {
                (steps, format!("expected 1 to rollout.steps = {steps} segments"))
            }
            _ => (65_536, "expected an integer from 1 to 65536".to_owned()),
        };
        let is_within = matches!(self.k, Samples::Count(k) if (1..=most).contains(&k));
        setting(key, self.k).ensure(is_within, expected)
    }

    fn check_positions(&self, sampler: &Sampler) -> Result<(), RunError> {
        let is_read =
            self.kind == EstimatorKind::Agrpo && sampler.position == PositionRule::LowConfidence;
        let is_unfiltered = sampler.top_k == 0 && sampler.top_p.get() == 1.0;
        let is_plain = sampler.cache == Cache::None && sampler.threshold.is_none();
        let expected = match self.position_gradient {
            true if !is_read => {
                "expected false: only agrpo in rollout.position = \"low-confidence\" \
                 has such a term"
            }
            true if !is_unfiltered => {
                "expected rollout.top_k = 0 and rollout.top_p = 1: \
                 what was kept at positions that lost is not recorded"
            }
            true if sampler.confidence == Confidence::Model => {
                "expected rollout.confidence = \"sampling\": \
                 the term is that of positions ranked by the distribution that tokens are drawn from"
            }
            true if !is_plain => {
                "expected rollout.cache = \"none\" and no rollout.threshold: \
                 the term is that of a fixed number of exact tokens a step"
            }
            _ => return Ok(()),
        };
        Err(setting("estimator.position_gradient", true).refused(expected))
    }
}

impl Sampler {
    /// Checks that cache and threshold are compatible with the other settings. Errors name keys of `section`.
    pub fn check(&self, section: &str) -> Result<(), RunError> {
        let key = |name: &str| format!("{section}.{name}");
        setting(key("guidance"), self.guidance).ensure(
            self.cache == Cache::None || self.guidance.get() == 0.0,
            format!("expected 0: cache = \"{}\" goes with no guidance", self.cache),
        )?;
        setting(key("confidence"), format!("\"{}\"", self.confidence)).ensure(
            self.confidence == Confidence::Sampling || self.position == PositionRule::LowConfidence,
            format!(
                "expected \"sampling\", or {} = \"low-confidence\": position = \"{}\" compares \
                 no confidences",
                key("position"),
                self.position
            ),
        )?;
        let Some(threshold) = self.threshold else { return Ok(()) };
        setting(key("threshold"), threshold).ensure(
            threshold.get() > 0.0 && threshold.get() <= 1.0,
            "expected a number above 0 and up to 1",
        )?;
        setting(key("position"), format!("\"{}\"", self.position)).ensure(
            self.position == PositionRule::LowConfidence,
            "expected \"low-confidence\": a threshold is one of confidence",
        )?;
        let tokens = self.completion_tokens;
        setting(key("steps"), self.steps).ensure(
            self.steps == tokens,
            format!(
                "expected the {tokens} tokens of a completion: with a threshold a step writes \
                 one token or more, so this is the most steps that there can be"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Cache, Confidence, EstimatorKind, Family, PositionRule, Real, Run, RunConfig, Samples,
        StepEvery, encode,
    };

    /// A run in which everything is written out, and what a change makes of it.
    fn changed(change: impl Fn(&mut RunConfig)) -> Result<Run, String> {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let mut config = Run::parse(smoke).unwrap().config().clone();
        change(&mut config);
        Run::resolve(config).map_err(|error| error.to_string())
    }

    fn by_sample(config: &mut RunConfig) {
        config.estimator.step_every = StepEvery::Sample;
        (config.estimator.fused_updates, config.estimator.accumulation_steps) = (true, 2);
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
    fn incompatible_settings_are_named() {
        let real = |value| Real::new(value).unwrap();
        let sure = Real::new(0.9);
        let all = [
            refused(|c| c.rollout.threshold = Real::new(0.0)),
            refused(|c| (c.rollout.threshold, c.rollout.steps) = (sure, 4)),
            refused(|c| {
                c.rollout.threshold = sure;
                c.rollout.position = PositionRule::Random;
            }),
            refused(|c| (c.evaluation.threshold, c.evaluation.steps) = (sure, vec![8, 4])),
            refused(|c| (c.evaluation.cache, c.evaluation.guidance) = (Cache::Dual, real(1.0))),
            refused(|c| {
                (c.rollout.threshold, c.estimator.kind) = (sure, EstimatorKind::MergedStep);
            }),
            refused(|c| (c.rollout.threshold, c.estimator.position_gradient) = (sure, true)),
            refused(|c| (c.rollout.cache, c.estimator.position_gradient) = (Cache::Prefix, true)),
            refused(|c| c.estimator.accumulation_steps = 2),
            refused(|c| c.estimator.step_every = StepEvery::Sample),
            refused(|c| {
                by_sample(c);
                c.estimator.k = Samples::All;
            }),
            refused(|c| {
                by_sample(c);
                c.estimator.kind = EstimatorKind::DiffuGrpo;
            }),
            refused(|c| {
                by_sample(c);
                c.estimator.accumulation_steps = 3;
            }),
            refused(|c| {
                (c.rollout.confidence, c.rollout.position) =
                    (Confidence::Model, PositionRule::Random);
            }),
            refused(|c| {
                (c.evaluation.confidence, c.evaluation.position) =
                    (Some(Confidence::Model), PositionRule::Entropy);
            }),
            refused(|c| {
                (c.rollout.confidence, c.estimator.position_gradient) = (Confidence::Model, true);
            }),
            refused(|c| {
                (c.rollout.position, c.estimator.position_gradient) = (PositionRule::Margin, true);
            }),
            refused(|c| {
                (c.rollout.position, c.rollout.threshold) = (PositionRule::LeftToRight, sure);
            }),
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
        estimator.accumulation_steps = 2: expected 1: micro-batches are told apart by estimator.step_every = "sample" alone
        estimator.fused_updates = false: expected true, or no such key: with estimator.step_every = "sample" the steps of an iteration are one stage
        estimator.step_every = "sample": expected "batch", or a number for estimator.k: "all" is a sum, not samples
        estimator.step_every = "sample": expected "batch": diffu-grpo draws no samples of a timestep
        estimator.accumulation_steps = 3: expected a divisor of rollout.prompts = 64
        rollout.confidence = "model": expected "sampling", or rollout.position = "low-confidence": position = "random" compares no confidences
        evaluation.confidence = "model": expected "sampling", or evaluation.position = "low-confidence": position = "entropy" compares no confidences
        estimator.position_gradient = true: expected rollout.confidence = "sampling": the term is that of positions ranked by the distribution that tokens are drawn from
        estimator.position_gradient = true: expected false: only agrpo in rollout.position = "low-confidence" has such a term
        rollout.position = "left-to-right": expected "low-confidence": a threshold is one of confidence
        "#);
    }

    /// Samplers from before there was a choice keep their names, and a greedy one has one name.
    #[test]
    fn a_distribution_of_confidence_is_a_further_number_of_the_order() {
        let rollout = changed(|c| c.rollout.position = PositionRule::LowConfidence).unwrap();
        let sampler = super::Sampler::from(&rollout.config().rollout);
        let of = |confidence, temperature| {
            let temperature = Real::new(temperature).unwrap();
            encode(&super::Sampler { confidence, temperature, ..sampler.clone() })
        };
        let (plain, model) = (of(Confidence::Sampling, 1.0), of(Confidence::Model, 1.0));
        let place = 3 * 4 + 8 + 4 + 8;
        assert_eq!(
            (&plain[place..place + 4], &model[place..place + 4]),
            (&[1, 0, 0, 0][..], &[3, 0, 0, 0][..])
        );
        assert_eq!((&plain[..place], &plain[place + 4..]), (&model[..place], &model[place + 4..]));
        assert_eq!(of(Confidence::Model, 0.0), of(Confidence::Sampling, 0.0));
        let model = changed(|c| c.rollout.confidence = Confidence::Model).unwrap();
        assert_ne!(model.id(), rollout.id());
        // Every order has a number of its own.
        let number = |position| {
            encode(&super::Sampler { position, ..sampler.clone() })[place..place + 4].to_vec()
        };
        let numbers = PositionRule::ALL.map(number);
        assert_eq!(numbers.concat(), [0u32, 1, 2, 4, 5].map(u32::to_le_bytes).concat());
    }

    #[test]
    fn merged_steps_want_as_many_steps_of_every_completion() {
        let merged = super::EstimatorConfig::plain(EstimatorKind::MergedStep);
        let refused = merged.check_family(Family::Sdar).unwrap_err().to_string();
        insta::assert_snapshot!(refused, @r#"estimator.kind = "merged-step": expected another kind: it cuts trajectories of equally many steps, and SDAR counts blocks from the prompt, so that rows take different numbers of steps"#);
        assert!(merged.check_family(Family::Dream).is_ok());
        let plain = super::EstimatorConfig::plain(EstimatorKind::Agrpo);
        assert!(plain.check_family(Family::Sdar).is_ok());
    }
}
