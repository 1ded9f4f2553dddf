//! The list of exported metrics, which `docs/guide/ecosystem.md` shows: names, units, and how stages are joined.
//!
//! A metric that is not listed is exported too: the mean over the iteration's stages, under its own name.

use agrpo_spec::{StageKind, metrics};

/// How the numbers of an iteration's stages become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
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

/// The metrics that are listed: the stage that measures it, its name there and after `train/` or `sft/`, how stages are
/// joined, and the unit.
const COLUMNS: [(StageKind, &str, Join, &str); 21] = [
    (StageKind::Rollout, metrics::TOKENS, Join::Sum, "tokens"),
    (StageKind::Rollout, metrics::ENTROPY, Join::WeightedBy(metrics::TOKENS), "nats"),
    (StageKind::Rollout, metrics::PASSES, Join::Mean, "passes"),
    (StageKind::Reward, metrics::REWARD, Join::Mean, "reward"),
    (StageKind::Reward, metrics::CORRECT, Join::Mean, "share"),
    (StageKind::Reward, metrics::NONZERO_ADVANTAGES, Join::Mean, "share"),
    (StageKind::Reward, metrics::COUNTED, Join::Mean, "share"),
    (StageKind::Reward, metrics::COMPLETIONS, Join::Sum, "completions"),
    (StageKind::Gradient, metrics::LOSS, Join::Mean, "loss"),
    (StageKind::Gradient, metrics::KL, Join::Mean, "nats"),
    (StageKind::Gradient, metrics::CLIP_SHARE, Join::Mean, "share"),
    (StageKind::Gradient, metrics::CLIP_SHARE_LOW, Join::Mean, "share"),
    (StageKind::Gradient, metrics::CLIP_SHARE_HIGH, Join::Mean, "share"),
    (StageKind::Gradient, metrics::RATIO_DEVIATION, Join::Max, "ratio"),
    (StageKind::Gradient, metrics::SAMPLES, Join::Mean, "samples"),
    (StageKind::Gradient, metrics::STATES, Join::Sum, "states"),
    (StageKind::Gradient, metrics::EMPTY_COMPLETIONS, Join::Sum, "completions"),
    (StageKind::Update, metrics::GRAD_NORM, Join::Mean, "norm"),
    (StageKind::Update, metrics::LEARNING_RATE, Join::Last, "rate"),
    (StageKind::Sft, metrics::LOSS, Join::Mean, "nats"),
    (StageKind::Sft, metrics::GRAD_NORM, Join::Last, "norm"),
];

pub(crate) fn join(kind: StageKind, metric: &str) -> Join {
    let listed = COLUMNS.iter().find(|column| (column.0, column.1) == (kind, metric));
    listed.map_or(Join::Mean, |(_, _, join, _)| *join)
}

/// The column of a training stage's metric.
pub(crate) fn name(kind: StageKind, metric: &str) -> String {
    let group = if kind == StageKind::Sft { "sft" } else { "train" };
    format!("{group}/{metric}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation is a table: a line for each column that there is.
    #[test]
    fn the_guide_lists_every_column_with_its_unit() {
        let guide = include_str!("../../docs/guide/ecosystem.md");
        for (kind, metric, _, unit) in COLUMNS {
            let line = format!("| `{}` | {unit} |", name(kind, metric));
            assert!(guide.contains(&line), "the guide has no line that begins with {line}");
        }
    }
}
