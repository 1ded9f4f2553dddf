//! The section `[estimator]`: which policy gradient, from how many samples, under which bounds.
//!
//! Defaults are published values, of AGRPO's GSM8K run or of the other method that `kind` names, so that one
//! key changes the estimator. All kinds share the keys; each key says which kinds read it.

use bincode::{Encode, enc::Encoder, error::EncodeError};
use serde::{Deserialize, Serialize};

use super::defaults;
use super::kind::{EstimatorKind, TokenMean};
use crate::digest::Real;

mod written;

pub use written::{Checkpointing, Samples};

/// How likely each step is to be drawn; weights keep the estimate unbiased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum StepWeights {
    /// Every step is equally likely.
    Uniform,
    /// In proportion to the entropy of the tokens that the step wrote, as published.
    #[default]
    Entropy,
}

/// What the low-discrepancy timesteps are spread over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Strata {
    /// Nothing: independent draws.
    None,
    /// All samples of the shard that have a term, so that draws depend on the division into shards.
    Shard,
    /// The k samples of each completion.
    Completion,
    /// All samples of a prompt's completions, as published: the reference's micro-batch is one prompt's group. No draw
    /// depends on rewards or on the division into shards.
    #[default]
    Group,
}

/// When the optimizer takes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEvery {
    /// Once for all samples of an update's completions: the paper's text.
    #[default]
    Batch,
    /// After every Monte Carlo sample of the update's last micro-batch: what the published program does.
    Sample,
}

/// Which steps of a completion the gradient is a mean over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Horizon {
    /// Up to the last step that wrote anything but end-of-sequence, divided by their number, as
    /// published. Both depend on later actions, which biases the gradient a little.
    #[default]
    Effective,
    /// Every step that was sampled, divided by the sampler's number of steps: unbiased.
    Sampled,
}

/// The policy gradient. Every value is explicit; what a run file leaves out is filled in by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct EstimatorConfig {
    /// Which estimator.
    pub kind: EstimatorKind,
    /// Samples of each completion. agrpo, ar-grpo: timesteps, or `"all"`; diffu-grpo: masked prompts;
    /// coupled-grpo: pairs of masks; merged-step: segments of the trajectory.
    pub k: Samples,
    /// What low-discrepancy timesteps are spread over. agrpo, ar-grpo.
    pub strata: Strata,
    /// How likely each step is to be drawn. agrpo.
    pub step_weights: StepWeights,
    /// Share of the draws that is uniform; its inverse bounds the weights. agrpo.
    pub uniform_share: Real,
    /// Which steps the gradient is a mean over. agrpo.
    pub horizon: Horizon,
    /// Adds the log-probability of the chosen positions: unbiased in low-confidence order. agrpo.
    pub position_gradient: bool,
    /// Share of the prompt's tokens that are masked. diffu-grpo, merged-step.
    pub prompt_mask: Real,
    /// The ratio is clipped from below at 1 - clip_low.
    pub clip_low: Real,
    /// The ratio is clipped from above at 1 + clip_high.
    pub clip_high: Real,
    /// Weight of the divergence from the base.
    pub kl: Real,
    /// Policy updates from the same trajectories.
    pub inner_updates: u32,
    /// Distinct states of one forward and backward pass.
    pub micro_batch: u32,
    /// Whether a pass keeps the inputs of its blocks alone.
    pub checkpointing: Checkpointing,
    /// Whether all inner updates of an iteration are one stage, which leaves one policy: the same bytes, and none of
    /// the gradients and policies between.
    pub fused_updates: bool,
    /// When the optimizer takes a step. agrpo.
    pub step_every: StepEvery,
    /// Micro-batches of an update, all but the last of which are accumulated before its first optimizer step. Of
    /// `step_every = "sample"`; 1 otherwise.
    pub accumulation_steps: u32,
    /// What token losses are a mean over. diffu-grpo, coupled-grpo, merged-step.
    pub token_mean: TokenMean,
}

/// The keys from `checkpointing` on take one byte, so that runs and gradients from before the others keep their names;
/// `accumulation_steps` follows where that byte says that a step is taken for every sample.
impl Encode for EstimatorConfig {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            kind,
            k,
            strata,
            step_weights,
            uniform_share,
            horizon,
            position_gradient,
            prompt_mask,
            clip_low,
            clip_high,
            kl,
            inner_updates,
            micro_batch,
            checkpointing,
            fused_updates,
            step_every,
            accumulation_steps,
            token_mean: _,
        } = self;
        (kind, k, strata, step_weights, uniform_share, horizon, position_gradient)
            .encode(encoder)?;
        (prompt_mask, clip_low, clip_high, kl, inner_updates, micro_batch).encode(encoder)?;
        let by_sample = *step_every == StepEvery::Sample;
        let flags = u8::from(*fused_updates) << 2 | u8::from(by_sample) << 3;
        (checkpointing.byte() | flags | self.token_mean_bit()).encode(encoder)?;
        if by_sample { accumulation_steps.encode(encoder) } else { Ok(()) }
    }
}

/// The section as a run file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    kind: EstimatorKind,
    k: Option<Samples>,
    #[serde(default)]
    strata: Strata,
    #[serde(default)]
    step_weights: StepWeights,
    #[serde(default)]
    uniform_share: Real,
    #[serde(default)]
    horizon: Horizon,
    #[serde(default)]
    position_gradient: bool,
    #[serde(default = "defaults::ratio::<15, 100>")]
    prompt_mask: Real,
    clip_low: Option<Real>,
    clip_high: Option<Real>,
    kl: Option<Real>,
    inner_updates: Option<u32>,
    micro_batch: u32,
    #[serde(default)]
    checkpointing: Checkpointing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fused_updates: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step_every: Option<StepEvery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accumulation_steps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_mean: Option<TokenMean>,
}

impl From<Written> for EstimatorConfig {
    fn from(written: Written) -> Self {
        let (k, clip, kl, inner_updates) = published(written.kind);
        let (clip, kl) = (defaults::real(clip), defaults::real(kl));
        let by_sample = written.step_every == Some(StepEvery::Sample);
        Self {
            kind: written.kind,
            k: written.k.unwrap_or(k),
            strata: written.strata,
            step_weights: written.step_weights,
            uniform_share: written.uniform_share,
            horizon: written.horizon,
            position_gradient: written.position_gradient,
            prompt_mask: written.prompt_mask,
            clip_low: written.clip_low.unwrap_or(clip),
            clip_high: written.clip_high.unwrap_or(clip),
            kl: written.kl.unwrap_or(kl),
            inner_updates: written.inner_updates.unwrap_or(inner_updates),
            micro_batch: written.micro_batch,
            checkpointing: written.checkpointing,
            fused_updates: written.fused_updates.unwrap_or(by_sample),
            step_every: written.step_every.unwrap_or_default(),
            accumulation_steps: written.accumulation_steps.unwrap_or(if by_sample { 2 } else { 1 }),
            token_mean: written
                .token_mean
                .filter(|_| written.kind.has_token_mean())
                .unwrap_or_default(),
        }
    }
}

/// Keys that others decide are written where they are read, so that what is written means the same when it is read.
impl From<EstimatorConfig> for Written {
    fn from(config: EstimatorConfig) -> Self {
        let by_sample = config.step_every == StepEvery::Sample;
        Self {
            kind: config.kind,
            k: Some(config.k),
            strata: config.strata,
            step_weights: config.step_weights,
            uniform_share: config.uniform_share,
            horizon: config.horizon,
            position_gradient: config.position_gradient,
            prompt_mask: config.prompt_mask,
            clip_low: Some(config.clip_low),
            clip_high: Some(config.clip_high),
            kl: Some(config.kl),
            inner_updates: Some(config.inner_updates),
            micro_batch: config.micro_batch,
            checkpointing: config.checkpointing,
            fused_updates: config.fused_updates.then_some(true),
            step_every: by_sample.then_some(config.step_every),
            accumulation_steps: by_sample.then_some(config.accumulation_steps),
            token_mean: config.kind.has_token_mean().then_some(config.token_mean),
        }
    }
}

impl EstimatorConfig {
    /// The unbiased choices for every kind: every step, a constant divisor, no divergence. For measurements and
    /// tests.
    pub fn plain(kind: EstimatorKind) -> Self {
        Self {
            kind,
            k: Samples::All,
            strata: Strata::None,
            step_weights: StepWeights::Uniform,
            uniform_share: Real::default(),
            horizon: Horizon::Sampled,
            position_gradient: false,
            prompt_mask: Real::default(),
            clip_low: defaults::real(0.2),
            clip_high: defaults::real(0.2),
            kl: Real::default(),
            inner_updates: 1,
            micro_batch: 1,
            checkpointing: Checkpointing::Never,
            fused_updates: false,
            step_every: StepEvery::Batch,
            accumulation_steps: 1,
            token_mean: TokenMean::Iteration,
        }
    }

    /// Bit 4 of the last byte of a configuration.
    fn token_mean_bit(&self) -> u8 {
        u8::from(self.kind.has_token_mean() && self.token_mean == TokenMean::Group) << 4
    }

    /// Optimizer steps of an iteration.
    pub fn optimizer_steps(&self) -> u32 {
        match (self.step_every, self.k) {
            (StepEvery::Sample, Samples::Count(k)) => self.inner_updates.saturating_mul(k),
            _ => self.inner_updates,
        }
    }
}

/// The published settings in which kinds differ: `k`, both clips, `kl` and `inner_updates`.
///
/// agrpo: its GSM8K run. diffu-grpo and merged-step: d1's and d2's Countdown and Sudoku; GSM8K and MATH have 12
/// inner updates there. coupled-grpo: DiffuCoder's recipe. ar-grpo: every position.
fn published(kind: EstimatorKind) -> (Samples, f64, f64, u32) {
    match kind {
        EstimatorKind::Agrpo => (Samples::Count(24), 0.2, 0.0, 1),
        EstimatorKind::DiffuGrpo => (Samples::Count(1), 0.5, 0.04, 8),
        EstimatorKind::CoupledGrpo => (Samples::Count(1), 0.5, 0.01, 2),
        EstimatorKind::MergedStep => (Samples::Count(16), 0.5, 0.04, 8),
        EstimatorKind::ArGrpo => (Samples::All, 0.2, 0.0, 1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Specs that say true or false keep their names.
    #[test]
    fn checkpointing_is_written_as_it_was_before_it_could_be_decided() {
        let of = |text: &str| -> Result<EstimatorConfig, String> {
            let text = format!("micro_batch = 8\ncheckpointing = {text}");
            toml::from_str(&text).map_err(|error| error.message().to_owned())
        };
        for (text, last) in [("false", 0u8), ("true", 1), ("\"auto\"", 2)] {
            let config = of(text).unwrap();
            assert_eq!(serde_json::to_value(&config).unwrap()["checkpointing"].to_string(), text);
            assert_eq!(crate::encode(&config).last(), Some(&last));
            let fused = EstimatorConfig { fused_updates: true, ..config };
            assert_eq!(crate::encode(&fused).last(), Some(&(last + 4)), "both keys in one byte");
        }
        assert_eq!(crate::encode(&true), [1]);
        assert_eq!(
            of("\"yes\"").unwrap_err(),
            "invalid value: string \"yes\", expected true, false or \"auto\""
        );
    }

    /// Steps for every sample are one stage, of two micro-batches as published; runs without them keep their names.
    #[test]
    fn steps_for_every_sample_have_their_published_settings() {
        let of = |text: &str| -> EstimatorConfig {
            toml::from_str(&format!("micro_batch = 8\n{text}")).unwrap()
        };
        let (plain, batch) = (of(""), of("step_every = \"batch\""));
        assert_eq!(crate::encode(&plain), crate::encode(&batch));
        let json = serde_json::to_value(&plain).unwrap();
        assert!(json.get("step_every").is_none() && json.get("accumulation_steps").is_none());
        assert_eq!((plain.accumulation_steps, plain.optimizer_steps()), (1, 1));
        let sample = of("step_every = \"sample\"");
        assert_eq!((sample.accumulation_steps, sample.optimizer_steps()), (2, 24));
        assert!(sample.fused_updates);
        let mut names = BTreeSet::new();
        for accumulation_steps in [1, 2, 16] {
            let config = EstimatorConfig { accumulation_steps, ..sample.clone() };
            let json = serde_json::to_value(&config).unwrap();
            assert_eq!(serde_json::from_value::<EstimatorConfig>(json).unwrap(), config);
            let file: EstimatorConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(file, config);
            names.insert(crate::encode(&config));
        }
        assert_eq!(names.len(), 3);
    }

    /// One key changes the estimator: what is left out is what it was published with.
    #[test]
    fn a_kind_alone_has_its_published_settings() {
        let of = |text: &str| {
            let text = format!("micro_batch = 8\n{text}");
            let config: EstimatorConfig = toml::from_str(&text).unwrap();
            let EstimatorConfig { k, clip_low, clip_high, kl, inner_updates, .. } = config;
            assert_eq!(clip_low, clip_high);
            format!("k {k}, clip {clip_high}, kl {kl}, inner_updates {inner_updates}")
        };
        assert_eq!(of(""), "k 24, clip 0.2, kl 0, inner_updates 1");
        assert_eq!(of("kind = \"diffu-grpo\""), "k 1, clip 0.5, kl 0.04, inner_updates 8");
        assert_eq!(of("kind = \"coupled-grpo\""), "k 1, clip 0.5, kl 0.01, inner_updates 2");
        assert_eq!(of("kind = \"merged-step\""), "k 16, clip 0.5, kl 0.04, inner_updates 8");
        assert_eq!(of("kind = \"ar-grpo\""), "k all, clip 0.2, kl 0, inner_updates 1");
        let own = "kind = \"diffu-grpo\"\nk = 4\nclip_low = 0.1\nclip_high = 0.1\nkl = 0.0";
        assert_eq!(of(own), "k 4, clip 0.1, kl 0, inner_updates 8");
    }
}
