//! The section `[lora]`: low-rank adapters over a frozen base (Hu et al., arXiv 2106.09685). Without it
//! every weight is trained.
//!
//! Defaults are those of AGRPO's published runs, but for `head`: there it followed from how a name was
//! matched, so here the file must say it.

use serde::{Deserialize, Serialize};

use super::defaults;
use crate::digest::Real;

/// What is adapted, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// R, of every adapted module.
    #[serde(default = "defaults::sixty_four")]
    pub rank: u32,
    /// What is added to W x is alpha / R times B (A x).
    #[serde(default = "defaults::lora_alpha")]
    pub alpha: Real,
    /// Modules of every block, by their last names in the checkpoint: some of [`Self::MODULES`].
    #[serde(default = "LoraConfig::every_module")]
    pub targets: Vec<String>,
    /// Whether the language-model head is adapted. Its last name is `ff_out` too; `targets` never
    /// means it.
    pub head: bool,
    /// alpha / sqrt(R) instead of alpha / R (rsLoRA, arXiv 2312.03732).
    #[serde(default)]
    pub rslora: bool,
    /// Whether rollouts and evaluations compute with W + s B A, rounded to the base's kind. It is
    /// faster, but the learner's probabilities are then no longer the sampler's to the bit.
    #[serde(default)]
    pub merge_for_sampling: bool,
}

impl LoraConfig {
    /// The linear modules of a block.
    pub const MODULES: [&str; 7] =
        ["q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"];

    /// What B (A x) is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = f64::from(self.rank);
        self.alpha.get() / if self.rslora { rank.sqrt() } else { rank }
    }

    fn every_module() -> Vec<String> {
        Self::MODULES.map(str::to_owned).into()
    }
}
