//! The optimizer's settings: the sections `[optimizer]` and `[sft.optimizer]`.

use serde::{Deserialize, Serialize};

use super::defaults;
use crate::digest::Real;

/// How a learning rate moves after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays.
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
    #[serde(default = "defaults::beta1")]
    pub beta1: Real,
    /// Decay of the second moment.
    #[serde(default = "defaults::beta2")]
    pub beta2: Real,
    /// Added to the root of the second moment.
    #[serde(default = "defaults::adam_eps")]
    pub eps: Real,
    /// Decoupled weight decay, times the learning rate each step; norms are exempt.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: Real,
    /// Largest global gradient norm.
    #[serde(default = "defaults::one")]
    pub max_grad_norm: Real,
    /// Linear warm-up: `[sft.optimizer]` counts steps; `[optimizer]` iterations, whose inner updates
    /// share a learning rate.
    #[serde(default)]
    pub warmup: u32,
    /// After the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the cosine ends, as a share of `learning_rate`.
    #[serde(default = "defaults::zero")]
    pub final_ratio: Real,
}
