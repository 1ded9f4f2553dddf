//! The section `[advantage]`: from rewards to advantages.
//!
//! Defaults are those of AGRPO's published GSM8K run.

use serde::{Deserialize, Serialize};

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
