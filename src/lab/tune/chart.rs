//! The chart of a tuning: what a second buys, and what strata and weights save.
//!
//! Settings without variance have no place on a log axis; the title says how many those are, and what is recommended.

use std::collections::BTreeSet;

use agrpo_spec::EstimatorKind;
use agrpo_view::plot::{self, Axis, Figure, Panel, Point, Series, Spread};
use agrpo_view::{JobsError, text::name_of};

use super::{grid::Setting, report::Report, row::Row};

/// A deviation, in units of the target's length, that is rounding.
const NO_VARIANCE: f64 = 1e-6;

/// Variance by seconds, one line an estimator; and the ratio to plain sampling by k, one line a way to draw
/// timesteps.
pub fn chart(report: &Report) -> Result<String, JobsError> {
    let (rows, best) = (&report.tuning.rows, report.tuning.recommended);
    let numbered = || rows.iter().filter_map(|row| Some((row.setting.count()?, row)));
    let varies = |row: &Row| row.relative_std > NO_VARIANCE;
    let still = rows.iter().filter(|row| !varies(row)).count();
    let head = best.map(|best| format!("; recommended: {best}")).unwrap_or_default();
    let speed = numbered().filter(|(_, row)| varies(row)).filter_map(|(_, row)| {
        let name = line(&row.setting, best.as_ref())?;
        Some((name, row.seconds, row.relative_std.powi(2)))
    });
    let saving = numbered()
        .filter(|(_, row)| !row.setting.is_plain())
        .filter_map(|(k, row)| Some((draws(&row.setting)?, f64::from(k), row.variance_ratio?)));
    let ks: BTreeSet<u32> = numbered().map(|(k, _)| k).collect();
    let panels = vec![
        Panel {
            title: format!(
                "variance by seconds, one point a k; not shown: {still} without variance"
            ),
            x: Axis::log("seconds of an estimate", vec![]),
            y: Axis::log("variance / squared length of the target", vec![]),
            series: series(speed),
            level: None,
        },
        Panel {
            title: "variance against plain sampling at the same k".to_owned(),
            x: Axis::log("samples of a completion, k", ks.into_iter().map(f64::from).collect()),
            y: Axis { from_zero: true, ..Axis::linear("variance ratio") },
            series: series(saving),
            level: Some(("plain: strata none, weights uniform".to_owned(), 1.0)),
        },
    ];
    plot::svg(&Figure { title: report.title() + &head, panels })
}

/// The line of a setting: of kinds that draw timesteps, the plain ones and those like the recommended one have one.
fn line(setting: &Setting, best: Option<&Setting>) -> Option<String> {
    let kind = setting.kind;
    if setting.strata.is_none() {
        return Some(kind.to_string());
    }
    let like_best = best.filter(|best| {
        // A single sample has no strata within its completion.
        let Setting { strata, step_weights, .. } = Setting { k: setting.k, ..**best }.simplified();
        (kind, setting.strata, setting.step_weights) == (best.kind, strata, step_weights)
    });
    match like_best {
        _ if setting.is_plain() => Some(format!("{kind}, plain")),
        Some(best) => Some(format!("{kind}, {}", draws(best)?)),
        None => None,
    }
}

fn draws(setting: &Setting) -> Option<String> {
    let kind = (setting.kind != EstimatorKind::Agrpo).then(|| setting.kind.to_string());
    let strata = name_of(&setting.strata?);
    let weights = setting.step_weights.map(|weights| name_of(&weights));
    Some(kind.into_iter().chain([strata]).chain(weights).collect::<Vec<_>>().join(", "))
}

/// Points by the name of their line, lines in the order of their first points.
fn series(points: impl Iterator<Item = (String, f64, f64)>) -> Vec<Series> {
    let mut all: Vec<Series> = vec![];
    for (name, x, y) in points {
        let point = Point { x, y, interval: None };
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name, points: vec![point], spread: Spread::Whiskers }),
        }
    }
    all
}
