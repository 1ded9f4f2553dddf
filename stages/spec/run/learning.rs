//! The sections from grades to advantages: `[reward]` and `[advantage]`.
//!
//! Defaults are those of AGRPO's published GSM8K run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
