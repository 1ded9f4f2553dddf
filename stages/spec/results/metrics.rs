//! The names of the metrics in manifests, for the stages that write them and every program that reads them. Manifests
//! store the names, so none may change.

/// Evaluation: the share of completions that are right, by the first sampler.
pub const ACCURACY: &str = "accuracy";
/// Gradient: the share of ratios that were clipped, on either side.
pub const CLIP_SHARE: &str = "clip_share";
/// Gradient: the share clipped from above.
pub const CLIP_SHARE_HIGH: &str = "clip_share_high";
/// Gradient: the share clipped from below.
pub const CLIP_SHARE_LOW: &str = "clip_share_low";
/// Reward: completions of the shard.
pub const COMPLETIONS: &str = "completions";
/// Reward: the share of completions that are right.
pub const CORRECT: &str = "correct";
/// Reward: the share of completions that the gradient's mean counts.
pub const COUNTED: &str = "counted";
/// Gradient: completions without a step to learn from.
pub const EMPTY_COMPLETIONS: &str = "empty_completions";
/// Rollout: the mean entropy of a written token, in nats.
pub const ENTROPY: &str = "entropy";
/// Sft and update: the gradient's norm before it was clipped, of the last step.
pub const GRAD_NORM: &str = "grad_norm";
/// Gradient: the divergence from the reference policy, in nats.
pub const KL: &str = "kl";
/// Sft and update: the learning rate of the last step.
pub const LEARNING_RATE: &str = "learning_rate";
/// Sft and gradient: the loss.
pub const LOSS: &str = "loss";
/// Reward: the share of completions with an advantage.
pub const NONZERO_ADVANTAGES: &str = "nonzero_advantages";
/// Rollout and evaluation: the mean number of forward passes over a completion.
pub const PASSES: &str = "passes";
/// Evaluation: held-out problems.
pub const PROBLEMS: &str = "problems";
/// Gradient: the largest distance of a ratio from 1.
pub const RATIO_DEVIATION: &str = "ratio_deviation";
/// Reward and evaluation: the mean reward.
pub const REWARD: &str = "reward";
/// Gradient: Monte Carlo samples of each completion.
pub const SAMPLES: &str = "samples";
/// Gradient: distinct states that were computed.
pub const STATES: &str = "states";
/// Sft: optimizer steps of the chunk.
pub const STEPS: &str = "steps";
/// Rollout: written tokens. Sft: tokens that were learned from.
pub const TOKENS: &str = "tokens";

/// Reward: begins the name of each part's mean, `part_<name>`.
pub const PART_PREFIX: &str = "part_";

/// Evaluation: a metric of the sampler with this number of unmask steps.
pub fn at_steps(metric: &str, steps: u32) -> String {
    format!("{metric}_{steps}")
}
