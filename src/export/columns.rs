//! The columns of exported metrics, which `docs/guide/ecosystem.md` lists with their units.
//!
//! A metric that is not listed is exported too: the mean over the iteration's stages, under its own name.

use agrpo_spec::StageKind;

/// The column of a training stage's metric.
pub(crate) fn name(kind: StageKind, metric: &str) -> String {
    let group = if kind == StageKind::Sft { "sft" } else { "train" };
    format!("{group}/{metric}")
}

#[cfg(test)]
mod tests {
    use agrpo_spec::metrics::LISTED;

    use super::*;

    /// The documentation is a table: a line for each column that there is.
    #[test]
    fn the_guide_lists_every_column_with_its_unit() {
        let guide = include_str!("../../docs/guide/ecosystem.md");
        for (kind, metric, _, unit) in LISTED {
            let line = format!("| `{}` | {unit} |", name(kind, metric));
            assert!(guide.contains(&line), "the guide has no line that begins with {line}");
        }
    }
}
