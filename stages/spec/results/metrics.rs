//! The names of the metrics in manifests, for the stages that write them and every program that reads them, and how
//! the numbers of several stages become one. Manifests store the names, so none may change.

use std::collections::BTreeMap;

use crate::{run::GridCell, stage::StageKind};

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
/// Evaluation, of a shard: the points of its completions, whose share is `accuracy`.
pub const EARNED: &str = "earned";
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
/// Evaluation, of a shard: the points that its completions could have earned.
pub const POSSIBLE: &str = "possible";
/// Evaluation: held-out problems; of a shard, its own.
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

/// Evaluation: the same in an evaluation of several lengths, as in `accuracy_128x64`.
pub fn at_cell(metric: &str, cell: GridCell) -> String {
    format!("{metric}_{cell}")
}

/// How the numbers of an iteration's stages of one kind become one. A stage of all inner updates joins the numbers of
/// its gradients and updates in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Their mean.
    Mean,
    /// Their mean, weighted by another metric of the same stages.
    WeightedBy(&'static str),
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// That of the last inner update.
    Last,
}

/// The metrics that are listed: the stage that measures it, its name, how stages are joined, and the unit. The others
/// are joined to their mean.
pub const LISTED: [(StageKind, &str, Join, &str); 21] = [
    (StageKind::Rollout, TOKENS, Join::Sum, "tokens"),
    (StageKind::Rollout, ENTROPY, Join::WeightedBy(TOKENS), "nats"),
    (StageKind::Rollout, PASSES, Join::Mean, "passes"),
    (StageKind::Reward, REWARD, Join::Mean, "reward"),
    (StageKind::Reward, CORRECT, Join::Mean, "share"),
    (StageKind::Reward, NONZERO_ADVANTAGES, Join::Mean, "share"),
    (StageKind::Reward, COUNTED, Join::Mean, "share"),
    (StageKind::Reward, COMPLETIONS, Join::Sum, "completions"),
    (StageKind::Gradient, LOSS, Join::Mean, "loss"),
    (StageKind::Gradient, KL, Join::Mean, "nats"),
    (StageKind::Gradient, CLIP_SHARE, Join::Mean, "share"),
    (StageKind::Gradient, CLIP_SHARE_LOW, Join::Mean, "share"),
    (StageKind::Gradient, CLIP_SHARE_HIGH, Join::Mean, "share"),
    (StageKind::Gradient, RATIO_DEVIATION, Join::Max, "ratio"),
    (StageKind::Gradient, SAMPLES, Join::Mean, "samples"),
    (StageKind::Gradient, STATES, Join::Sum, "states"),
    (StageKind::Gradient, EMPTY_COMPLETIONS, Join::Sum, "completions"),
    (StageKind::Update, GRAD_NORM, Join::Mean, "norm"),
    (StageKind::Update, LEARNING_RATE, Join::Last, "rate"),
    (StageKind::Sft, LOSS, Join::Mean, "nats"),
    (StageKind::Sft, GRAD_NORM, Join::Last, "norm"),
];

/// A stage's metrics by name.
pub type Metrics = BTreeMap<String, f64>;

/// The metrics of stages of one kind, in the order of the plan, as one.
pub fn joined(kind: StageKind, stages: &[&Metrics]) -> Metrics {
    let mut found: BTreeMap<&str, Vec<&Metrics>> = BTreeMap::new();
    for &stage in stages {
        for metric in stage.keys() {
            found.entry(metric).or_default().push(stage);
        }
    }
    let join = |(metric, stages): (&str, Vec<&Metrics>)| {
        let of = |metric: &str| -> Vec<f64> {
            stages.iter().map(|stage| stage.get(metric).copied().unwrap_or(0.0)).collect()
        };
        let listed = LISTED.iter().find(|listed| (listed.0, listed.1) == (kind, metric));
        let join = listed.map_or(Join::Mean, |(_, _, join, _)| *join);
        let weights = if let Join::WeightedBy(weight) = join { Some(of(weight)) } else { None };
        (metric.to_owned(), join.of(&of(metric), weights.as_deref().unwrap_or_default()))
    };
    found.into_iter().map(join).collect()
}

impl Join {
    /// One number of several; 0 of none. `weights` are those of a weighted mean, one for each number.
    fn of(self, numbers: &[f64], weights: &[f64]) -> f64 {
        let mean = || numbers.iter().sum::<f64>() / numbers.len() as f64;
        match self {
            Self::Mean => mean(),
            Self::WeightedBy(_) => {
                let total: f64 = weights.iter().sum();
                let sum: f64 = numbers.iter().zip(weights).map(|(n, weight)| n * weight).sum();
                if total > 0.0 { sum / total } else { mean() }
            }
            Self::Sum => numbers.iter().sum(),
            Self::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Last => numbers.last().copied().unwrap_or_default(),
        }
    }
}
