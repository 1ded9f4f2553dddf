//! The kinds of stage: names, order, and the version of the bytes that each writes.

use serde::{Deserialize, Serialize};

/// The six kinds of stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// Supervised fine-tuning.
    Sft,
    /// Trajectories.
    Rollout,
    /// Rewards and advantages.
    Reward,
    /// The Monte Carlo policy gradient of one shard.
    Gradient,
    /// The optimizer step.
    Update,
    /// Accuracy on held-out problems.
    Evaluation,
}

impl StageKind {
    /// All kinds, in the order of the chain.
    pub const ALL: [Self; 6] =
        [Self::Sft, Self::Rollout, Self::Reward, Self::Gradient, Self::Update, Self::Evaluation];

    /// The name in digests, manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Rollout => "rollout",
            Self::Reward => "reward",
            Self::Gradient => "gradient",
            Self::Update => "update",
            Self::Evaluation => "evaluation",
        }
    }

    /// The current version of the kind's bytes.
    pub fn version(self) -> u32 {
        match self {
            Self::Sft | Self::Update => 3,
            Self::Rollout | Self::Reward | Self::Gradient | Self::Evaluation => 4,
        }
    }
}

impl std::fmt::Display for StageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
