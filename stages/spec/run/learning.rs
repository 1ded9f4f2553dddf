//! From rewards to new weights: the sections `[advantage]`, `[optimizer]`, `[sft.optimizer]` and `[lora]`.
//!
//! Defaults are those of AGRPO's published runs, except `lora.head`: in those runs it depended on how a name was
//! matched, so a run file must set it.

use bincode::{Encode, enc::Encoder, error::EncodeError};
use serde::{Deserialize, Serialize};

use super::{defaults, kind::EstimatorKind};
use crate::digest::Real;

/// What a completion's reward is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The mean of its group.
    #[default]
    GroupMean,
    /// The mean of the others of its group (RLOO, DiffuCoder).
    LeaveOneOut,
}

/// The spread that a group's centred rewards are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageScale {
    /// None, as published.
    #[default]
    None,
    /// The group's standard deviation (GRPO).
    GroupStd,
    /// The standard deviation over all completions of the shard. It depends on the division into shards.
    BatchStd,
    /// The group's sample standard deviation plus 1e-4 (TRL, JustGRPO).
    GroupSampleStd,
}

/// How rewards become advantages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Advantage {
    /// What rewards are compared with.
    pub baseline: Baseline,
    /// The divisor.
    pub scale: AdvantageScale,
    /// Leaves groups without spread out of the gradient's mean instead of counting them as zeros.
    pub filter_groups: bool,
}

impl Advantage {
    /// What an estimator was published with. agrpo, and diffu-grpo and merged-step (d1 and d2): the group's mean.
    /// coupled-grpo: DiffuCoder's recipe. ar-grpo: JustGRPO's.
    pub(super) fn published(kind: EstimatorKind) -> Self {
        let (baseline, scale) = match kind {
            EstimatorKind::Agrpo | EstimatorKind::DiffuGrpo | EstimatorKind::MergedStep => {
                (Baseline::GroupMean, AdvantageScale::None)
            }
            EstimatorKind::CoupledGrpo => (Baseline::LeaveOneOut, AdvantageScale::None),
            EstimatorKind::ArGrpo => (Baseline::GroupMean, AdvantageScale::GroupSampleStd),
        };
        Self { baseline, scale, filter_groups: false }
    }
}

/// The baseline shares the byte of `filter_groups`, so that runs and rewards from before it keep their names.
impl Encode for Advantage {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self { baseline, scale, filter_groups } = self;
        let baseline = u8::from(*baseline == Baseline::LeaveOneOut);
        (scale, u8::from(*filter_groups) | baseline << 1).encode(encoder)
    }
}

/// How a learning rate moves after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays constant.
    Constant,
    /// Falls to `final_ratio` of itself along half a cosine.
    #[default]
    Cosine,
}

/// AdamW with a global gradient-norm clip (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Learning rate at the end of the warm-up.
    pub learning_rate: Real,
    /// Decay of the first moment.
    #[serde(default = "defaults::ratio::<9, 10>")]
    pub beta1: Real,
    /// Decay of the second moment.
    #[serde(default = "defaults::ratio::<99, 100>")]
    pub beta2: Real,
    /// Added to the root of the second moment.
    #[serde(default = "defaults::ratio::<1, 100_000_000>")]
    pub eps: Real,
    /// Decoupled weight decay, times the learning rate each step; norms and biases are exempt.
    #[serde(default = "defaults::ratio::<1, 100>")]
    pub weight_decay: Real,
    /// Largest global gradient norm.
    #[serde(default = "defaults::ratio::<1, 1>")]
    pub max_grad_norm: Real,
    /// Linear warm-up, in steps of `[sft.optimizer]`; in iterations, inner updates included, of `[optimizer]`.
    #[serde(default)]
    pub warmup: u32,
    /// Whether the warm-up starts at a rate of 0, as in transformers, and not at that of its first step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starts_at_zero: bool,
    /// The schedule after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the cosine ends, as a share of `learning_rate`.
    #[serde(default)]
    pub final_ratio: Real,
}

/// A warm-up that starts at 0 makes further numbers of the schedules, so that runs and updates from before it keep their
/// names.
impl Encode for OptimizerConfig {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            learning_rate,
            beta1,
            beta2,
            eps,
            weight_decay,
            max_grad_norm,
            warmup,
            starts_at_zero,
            schedule,
            final_ratio,
        } = self;
        let schedule: u32 = match (starts_at_zero, schedule) {
            (false, Schedule::Constant) => 0,
            (false, Schedule::Cosine) => 1,
            (true, Schedule::Constant) => 2,
            (true, Schedule::Cosine) => 3,
        };
        (learning_rate, beta1, beta2, eps, weight_decay).encode(encoder)?;
        (max_grad_norm, warmup, schedule, final_ratio).encode(encoder)
    }
}

/// Low-rank adapters over a frozen base (Hu et al., arXiv 2106.09685): what is adapted, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// R, of every adapted module.
    #[serde(default = "defaults::whole::<64>")]
    pub rank: u32,
    /// The adapter adds alpha / R times B (A x) to W x.
    #[serde(default = "defaults::ratio::<64, 1>")]
    pub alpha: Real,
    /// Modules of every block, by their last names in checkpoints of the family. Run files that leave them out mean all of
    /// them; records from before there were families have LLaDA's.
    #[serde(default = "LoraConfig::every_module")]
    pub targets: Vec<String>,
    /// Whether the head is adapted. Its last name is `ff_out` too; `targets` never includes it.
    pub head: bool,
    /// alpha / sqrt(R) instead of alpha / R (rsLoRA, arXiv 2312.03732).
    #[serde(default)]
    pub rslora: bool,
    /// Whether rollouts and evaluations compute with W + s B A, rounded: faster, but with other bits than the
    /// learner's. Refused over a base of bf16, whose rounding is larger than most of what an update adds.
    #[serde(default)]
    pub merge_for_sampling: bool,
}

impl LoraConfig {
    /// The linear modules of a block of LLaDA's.
    pub const MODULES: [&str; 7] =
        ["q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"];

    /// The factor of B (A x).
    pub fn scale(&self) -> f64 {
        let rank = f64::from(self.rank);
        self.alpha.get() / if self.rslora { rank.sqrt() } else { rank }
    }

    fn every_module() -> Vec<String> {
        Self::MODULES.map(str::to_owned).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    /// The bytes of advantages and optimizers from before their newer keys are those that they had.
    #[test]
    fn newer_keys_share_bytes() {
        let of = |text: &str| encode(&toml::from_str::<Advantage>(text).unwrap());
        assert_eq!(of(""), [0, 0, 0, 0, 0]);
        assert_eq!(of("scale = \"batch-std\"\nfilter_groups = true"), [2, 0, 0, 0, 1]);
        assert_eq!(
            of("scale = \"group-sample-std\"\nbaseline = \"leave-one-out\""),
            [3, 0, 0, 0, 2]
        );
        assert_eq!(of("filter_groups = true\nbaseline = \"leave-one-out\""), [0, 0, 0, 0, 3]);
        let of = |text: &str| {
            let text = format!("learning_rate = 0.5\nwarmup = 7\n{text}");
            encode(&toml::from_str::<OptimizerConfig>(&text).unwrap())
        };
        let plain = of("");
        assert_eq!(plain.len(), 6 * 8 + 4 + 4 + 8);
        assert_eq!(plain[48..56], [7, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(of("schedule = \"constant\"")[48..56], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(of("starts_at_zero = true")[48..56], [7, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(of("starts_at_zero = true\nschedule = \"constant\"")[52], 2);
        assert_eq!(of("starts_at_zero = false"), plain);
    }
}
