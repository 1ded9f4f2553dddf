//! The chart of a tuning: what a second buys, and what strata and weights save.
//!
//! What has no variance has no place on a logarithm's axis: the exact sum, and one step of every stratum
//! where there are as many as steps. The title says how many those are, and what is recommended.

use agrpo_spec::{EstimatorKind, Samples, StepWeights, Strata};
use agrpo_view::ViewError;
use agrpo_view::plot::{self, Axis, Figure, Level, Panel, Point, Series, Spread};

use super::grid::{Setting, strata_name, weights_name};
use super::report::Report;
use super::row::Row;

/// A deviation, in units of the target's length, that is rounding.
const NO_VARIANCE: f64 = 1e-6;

/// Variance by seconds, one line an estimator; and the ratio to plain sampling by k, one line for each
/// other way to draw timesteps.
pub fn chart(report: &Report) -> Result<String, ViewError> {
    let rows = &report.tuning.rows;
    let log = |title: &str, ticks: Vec<f64>| Axis {
        title: title.to_owned(),
        is_log: true,
        ticks,
        ..Axis::default()
    };
    let numbered = |row: &&Row| matches!(row.setting.k, Samples::Count(_));
    let varies = |row: &&Row| row.relative_std > NO_VARIANCE;
    let best = report.tuning.recommended;
    let still = rows.iter().filter(|row| !varies(row)).count();
    let head = best.map(|best| format!("; recommended: {best}")).unwrap_or_default();
    let speed = rows.iter().filter(numbered).filter(varies).filter_map(|row| {
        let name = line(&row.setting, best.as_ref())?;
        Some((name, row.seconds, row.relative_std.powi(2)))
    });
    let saving =
        rows.iter().filter(numbered).filter(|row| !is_plain(&row.setting)).filter_map(|row| {
            let Samples::Count(k) = row.setting.k else { return None };
            Some((draws(&row.setting)?, f64::from(k), row.variance_ratio?))
        });
    let mut ks: Vec<f64> = rows
        .iter()
        .filter_map(|row| match row.setting.k {
            Samples::Count(k) => Some(f64::from(k)),
            Samples::All => None,
        })
        .collect();
    ks.sort_by(f64::total_cmp);
    ks.dedup();
    let panels = vec![
        Panel {
            title: format!(
                "variance by seconds, one point a k; not shown: {still} without variance"
            ),
            x: log("seconds of an estimate", vec![]),
            y: log("variance / squared length of the target", vec![]),
            series: series(speed),
            level: None,
        },
        Panel {
            title: "variance against plain sampling at the same k".to_owned(),
            x: log("samples of a completion, k", ks),
            y: Axis { title: "variance ratio".to_owned(), from_zero: true, ..Axis::default() },
            series: series(saving),
            level: Some(Level { name: "plain: strata none, weights uniform".to_owned(), y: 1.0 }),
        },
    ];
    plot::svg(&Figure { title: report.title() + &head, panels })
}

/// The line that a setting is a point of: of kinds that draw timesteps only the plain one and the
/// recommended one, as the other panel compares them all.
fn line(setting: &Setting, best: Option<&Setting>) -> Option<String> {
    let kind = setting.kind;
    if setting.strata.is_none() {
        return Some(kind.to_string());
    }
    let like_best = best.filter(|best| {
        // A single sample has no strata within its completion.
        let strata = match setting.k {
            Samples::Count(1) if best.strata == Some(Strata::Completion) => Some(Strata::None),
            _ => best.strata,
        };
        (kind, setting.strata, setting.step_weights) == (best.kind, strata, best.step_weights)
    });
    match like_best {
        _ if is_plain(setting) => Some(format!("{kind}, plain")),
        Some(best) => Some(format!("{kind}, {}", draws(best)?)),
        None => None,
    }
}

fn draws(setting: &Setting) -> Option<String> {
    let strata = strata_name(setting.strata?);
    let own = match setting.step_weights {
        Some(weights) => format!("{strata}, {}", weights_name(weights)),
        None => strata.to_owned(),
    };
    let is_other = setting.kind != EstimatorKind::Agrpo;
    Some(if is_other { format!("{}, {own}", setting.kind) } else { own })
}

fn is_plain(setting: &Setting) -> bool {
    setting.strata == Some(Strata::None) && setting.step_weights != Some(StepWeights::Entropy)
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
