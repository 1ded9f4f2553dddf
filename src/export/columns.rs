//! The list of exported metrics, which `docs/guide/ecosystem.md` shows: names, units, and how stages are joined.
//!
//! A metric that is not listed is exported too: the mean over the iteration's stages, under its own name.

use agrpo_spec::StageKind;

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
    (StageKind::Rollout, "tokens", Join::Sum, "tokens"),
    (StageKind::Rollout, "entropy", Join::WeightedBy("tokens"), "nats"),
    (StageKind::Rollout, "passes", Join::Mean, "passes"),
    (StageKind::Reward, "reward", Join::Mean, "reward"),
    (StageKind::Reward, "correct", Join::Mean, "share"),
    (StageKind::Reward, "nonzero_advantages", Join::Mean, "share"),
    (StageKind::Reward, "counted", Join::Mean, "share"),
    (StageKind::Reward, "completions", Join::Sum, "completions"),
    (StageKind::Gradient, "loss", Join::Mean, "loss"),
    (StageKind::Gradient, "kl", Join::Mean, "nats"),
    (StageKind::Gradient, "clip_share", Join::Mean, "share"),
    (StageKind::Gradient, "clip_share_low", Join::Mean, "share"),
    (StageKind::Gradient, "clip_share_high", Join::Mean, "share"),
    (StageKind::Gradient, "ratio_deviation", Join::Max, "ratio"),
    (StageKind::Gradient, "samples", Join::Mean, "samples"),
    (StageKind::Gradient, "states", Join::Sum, "states"),
    (StageKind::Gradient, "empty_completions", Join::Sum, "completions"),
    (StageKind::Update, "grad_norm", Join::Mean, "norm"),
    (StageKind::Update, "learning_rate", Join::Last, "rate"),
    (StageKind::Sft, "loss", Join::Mean, "nats"),
    (StageKind::Sft, "grad_norm", Join::Last, "norm"),
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
