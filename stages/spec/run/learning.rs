//! From rewards to new weights: the sections `[advantage]`, `[optimizer]`, `[sft.optimizer]` and `[lora]`.
//!
//! Defaults are those of AGRPO's published runs, except `lora.head`: in those runs it depended on how a name was
//! matched, so a run file must set it.

use serde::{Deserialize, Serialize};

use super::defaults;
use crate::digest::Real;

/// The spread that a group's centred rewards are divided by.
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

/// How rewards become advantages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields, default)]
pub struct Advantage {
    /// The divisor.
    pub scale: AdvantageScale,
    /// Leaves groups without spread out of the gradient's mean instead of counting them as zeros.
    pub filter_groups: bool,
}

/// How a learning rate moves after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays constant.
    Constant,
    /// Falls to `final_ratio` of itself along half a cosine.
    #[default]
    Cosine,
}

/// AdamW with a global gradient-norm clip (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
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
    /// Decoupled weight decay, times the learning rate each step; norms are exempt.
    #[serde(default = "defaults::ratio::<1, 100>")]
    pub weight_decay: Real,
    /// Largest global gradient norm.
    #[serde(default = "defaults::ratio::<1, 1>")]
    pub max_grad_norm: Real,
    /// Linear warm-up, in steps of `[sft.optimizer]`; in iterations, inner updates included, of `[optimizer]`.
    #[serde(default)]
    pub warmup: u32,
    /// The schedule after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the cosine ends, as a share of `learning_rate`.
    #[serde(default)]
    pub final_ratio: Real,
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
    /// Modules of every block, by their last names in the checkpoint: some of [`Self::MODULES`].
    #[serde(default = "LoraConfig::every_module")]
    pub targets: Vec<String>,
    /// Whether the head is adapted. Its last name is `ff_out` too; `targets` never includes it.
    pub head: bool,
    /// alpha / sqrt(R) instead of alpha / R (rsLoRA, arXiv 2312.03732).
    #[serde(default)]
    pub rslora: bool,
    /// Whether rollouts and evaluations compute with W + s B A, rounded: faster, but with other bits than the
    /// learner's.
    #[serde(default)]
    pub merge_for_sampling: bool,
}

impl LoraConfig {
    /// The linear modules of a block.
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
