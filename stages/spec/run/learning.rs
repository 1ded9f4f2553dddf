//! The sections from grades to gradients: `[reward]`, `[advantage]` and `[estimator]`.
//!
//! Defaults are those of AGRPO's published GSM8K run. The `[estimator]` keys are shared by all kinds;
//! each says which kinds read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::defaults;
use crate::digest::Real;

/// What a completion is worth: a weighted sum of the task's reward parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// Weight by part; parts that are not named weigh nothing. Without any, `correct` weighs 1.
    #[serde(default)]
    pub weights: BTreeMap<String, Real>,
}

/// Which spread a group's mean-free rewards are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageScale {
    /// None, as published.
    #[default]
    None,
    /// The group's standard deviation (GRPO).
    GroupStd,
    /// The standard deviation over all completions of the shard.
    BatchStd,
}

/// From rewards to advantages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct Advantage {
    /// The divisor.
    #[serde(default)]
    pub scale: AdvantageScale,
    /// Leaves groups without spread out of the gradient's mean instead of counting them as zeros.
    #[serde(default)]
    pub filter_groups: bool,
}

/// The policy-gradient estimators; one file each in `stages/estimator/`.
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
pub enum EstimatorKind {
    /// Amortized GRPO (arXiv 2510.04019).
    #[default]
    Agrpo,
    /// diffu-GRPO (d1, arXiv 2504.12216): one fully masked pass.
    DiffuGrpo,
    /// coupled-GRPO (DiffuCoder, arXiv 2506.20639): complementary masks.
    CoupledGrpo,
    /// Neighbouring steps share a pass (d2-StepMerge, arXiv 2509.21474; TraceRL, arXiv 2509.06949).
    MergedStep,
    /// GRPO in autoregressive order (JustGRPO, arXiv 2601.15165).
    ArGrpo,
}

impl EstimatorKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Agrpo, Self::DiffuGrpo, Self::CoupledGrpo, Self::MergedStep, Self::ArGrpo];

    /// The name in run files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agrpo => "agrpo",
            Self::DiffuGrpo => "diffu-grpo",
            Self::CoupledGrpo => "coupled-grpo",
            Self::MergedStep => "merged-step",
            Self::ArGrpo => "ar-grpo",
        }
    }
}

impl std::fmt::Display for EstimatorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How many Monte Carlo samples a completion gets: a number, or `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode)]
pub enum Samples {
    /// So many.
    Count(u32),
    /// Every step once: the exact sum.
    All,
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Samples;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of samples or \"all\"")
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Samples, E> {
                let unexpected = serde::de::Unexpected::Unsigned(value);
                let count = u32::try_from(value);
                count.map(Samples::Count).map_err(|_| E::invalid_value(unexpected, &self))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Samples, E> {
                let unexpected = serde::de::Unexpected::Signed(value);
                let count = u32::try_from(value);
                count.map(Samples::Count).map_err(|_| E::invalid_value(unexpected, &self))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Samples, E> {
                match value {
                    "all" => Ok(Samples::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

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
    /// All samples of the shard, as published.
    #[default]
    Shard,
    /// The k samples of each completion.
    Completion,
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

/// The policy gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct EstimatorConfig {
    /// Which estimator.
    #[serde(default)]
    pub kind: EstimatorKind,
    /// Samples of each completion. agrpo, ar-grpo: timesteps, or `"all"`; diffu-grpo: masked prompts;
    /// coupled-grpo: pairs of masks; merged-step: segments of the trajectory.
    #[serde(default = "defaults::samples")]
    pub k: Samples,
    /// What low-discrepancy timesteps are spread over. agrpo, ar-grpo.
    #[serde(default)]
    pub strata: Strata,
    /// How likely each step is to be drawn. agrpo.
    #[serde(default)]
    pub step_weights: StepWeights,
    /// Share of the draws that is uniform whatever `step_weights` says; bounds the weights by its
    /// inverse. agrpo.
    #[serde(default = "defaults::zero")]
    pub uniform_share: Real,
    /// Which steps the gradient is a mean over. agrpo.
    #[serde(default)]
    pub horizon: Horizon,
    /// Adds the log-probability of the positions chosen, which low-confidence order needs to be
    /// unbiased. agrpo.
    #[serde(default)]
    pub position_gradient: bool,
    /// Share of the prompt's tokens that are masked. diffu-grpo, merged-step.
    #[serde(default = "defaults::prompt_mask")]
    pub prompt_mask: Real,
    /// The ratio is clipped from below at 1 - clip_low.
    #[serde(default = "defaults::clip")]
    pub clip_low: Real,
    /// The ratio is clipped from above at 1 + clip_high.
    #[serde(default = "defaults::clip")]
    pub clip_high: Real,
    /// Weight of the divergence from the base.
    #[serde(default = "defaults::zero")]
    pub kl: Real,
    /// Policy updates from the same trajectories.
    #[serde(default = "defaults::one_update")]
    pub inner_updates: u32,
    /// Distinct states of one forward and backward pass.
    pub micro_batch: u32,
}
