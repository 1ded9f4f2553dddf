//! Exported metrics: their names, how the stages of an iteration are joined to one number, and the
//! unit: the one list, which `docs/guide/ecosystem.md` shows.
//!
//! A metric that is not listed is exported too: the mean over the iteration's stages, under its own
//! name.

use agrpo_spec::StageKind;

/// How the numbers of an iteration's stages become one.
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

/// A metric of a stage, and its column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The stage that measures it.
    pub kind: StageKind,
    /// Its name there, and after `train/` or `sft/`.
    pub metric: &'static str,
    /// From stages to an iteration.
    pub join: Join,
    /// What its number counts.
    pub unit: &'static str,
}

const fn column(kind: StageKind, metric: &'static str, join: Join, unit: &'static str) -> Column {
    Column { kind, metric, join, unit }
}

/// The metrics that are listed.
pub const COLUMNS: [Column; 21] = [
    column(StageKind::Rollout, "tokens", Join::Sum, "tokens"),
    column(StageKind::Rollout, "entropy", Join::WeightedBy("tokens"), "nats"),
    column(StageKind::Rollout, "passes", Join::Mean, "passes"),
    column(StageKind::Reward, "reward", Join::Mean, "reward"),
    column(StageKind::Reward, "correct", Join::Mean, "share"),
    column(StageKind::Reward, "nonzero_advantages", Join::Mean, "share"),
    column(StageKind::Reward, "counted", Join::Mean, "share"),
    column(StageKind::Reward, "completions", Join::Sum, "completions"),
    column(StageKind::Gradient, "loss", Join::Mean, "loss"),
    column(StageKind::Gradient, "kl", Join::Mean, "nats"),
    column(StageKind::Gradient, "clip_share", Join::Mean, "share"),
    column(StageKind::Gradient, "clip_share_low", Join::Mean, "share"),
    column(StageKind::Gradient, "clip_share_high", Join::Mean, "share"),
    column(StageKind::Gradient, "ratio_deviation", Join::Max, "ratio"),
    column(StageKind::Gradient, "samples", Join::Mean, "samples"),
    column(StageKind::Gradient, "states", Join::Sum, "states"),
    column(StageKind::Gradient, "empty_completions", Join::Sum, "completions"),
    column(StageKind::Update, "grad_norm", Join::Mean, "norm"),
    column(StageKind::Update, "learning_rate", Join::Last, "rate"),
    column(StageKind::Sft, "loss", Join::Mean, "nats"),
    column(StageKind::Sft, "grad_norm", Join::Last, "norm"),
];

/// How a metric of a kind of stage is joined.
pub fn join(kind: StageKind, metric: &str) -> Join {
    let listed = COLUMNS.iter().find(|column| column.kind == kind && column.metric == metric);
    listed.map_or(Join::Mean, |column| column.join)
}

/// The column of a training stage's metric.
pub fn name(kind: StageKind, metric: &str) -> String {
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
        for column in COLUMNS {
            let line = format!("| `{}` | {} |", name(column.kind, column.metric), column.unit);
            assert!(guide.contains(&line), "the guide has no line that begins with {line}");
        }
    }
}
