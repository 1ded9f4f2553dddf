//! The charts of a run, and of several runs beside each other: which metrics, how thinned out, with which
//! intervals. `plot.rs` draws them.
//!
//! A curve of more points than pixels would add bytes and show no more, so iterations that share a place
//! are joined: their mean, and the interval of that mean from the spread of all that went into it.

use std::collections::BTreeMap;

use agrpo_spec::{Evaluation, StageKind};

use crate::history::{Done, RunHistory};
use crate::plot::{Axis, Figure, Panel, Point, Series, Spread};
use crate::statistics::{Interval, pass_at};

/// Points of a curve at most.
const MOST_POINTS: usize = 120;
/// The standard normal distribution's quantile for intervals of 95 %.
const Z95: f64 = 1.959_963_984_540_054;

/// A chart with a name that suits a file.
#[derive(Clone, Debug)]
pub struct Named {
    /// As in `reward.svg`.
    pub name: &'static str,
    /// The chart.
    pub figure: Figure,
}

/// A run under the name that its curves bear.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The curves' name.
    pub name: &'a str,
    /// The run.
    pub history: &'a RunHistory,
}

/// Every chart for which there are numbers.
pub fn all(runs: &[Shown<'_>]) -> Vec<Named> {
    let rollout = |name| move |history: &RunHistory| history.metric(StageKind::Rollout, name);
    let gradient = |name| move |history: &RunHistory| history.metric(StageKind::Gradient, name);
    let mut charts = vec![
        curve(runs, "reward", "mean reward", &|history| {
            history.metric(StageKind::Reward, "reward")
        }),
        accuracy(runs),
        steps(runs),
        parts(runs),
        curve(runs, "gradient-norm", "gradient norm", &|history| {
            history.metric(StageKind::Update, "grad_norm")
        }),
        curve(runs, "clip-share", "share of clipped ratios", &gradient("clip_share")),
        curve(runs, "entropy", "entropy of a written token, nats", &rollout("entropy")),
        curve(runs, "length", "tokens of a completion", &length),
        seconds(runs),
    ];
    charts.retain(|chart| {
        chart.figure.panels.iter().flat_map(|panel| &panel.series).any(|s| !s.points.is_empty())
    });
    charts
}

/// A metric over the iterations.
fn curve(
    runs: &[Shown<'_>],
    name: &'static str,
    title: &str,
    values: &dyn Fn(&RunHistory) -> BTreeMap<u32, Vec<f64>>,
) -> Named {
    let series = runs.iter().map(|run| Series {
        name: run.name.to_owned(),
        points: thinned(&values(run.history)),
        spread: Spread::Band,
    });
    Named { name, figure: one_panel(title, iterations(), axis(title, false), series.collect()) }
}

/// Tokens of a completion that were written, by iteration and shard.
fn length(history: &RunHistory) -> BTreeMap<u32, Vec<f64>> {
    let tokens = history.metric(StageKind::Rollout, "tokens");
    let completions = history.metric(StageKind::Reward, "completions");
    let both = tokens.into_iter().filter_map(|(iteration, tokens)| {
        let counts = completions.get(&iteration)?;
        let lengths = tokens.iter().zip(counts).map(|(tokens, count)| tokens / count);
        Some((iteration, lengths.collect()))
    });
    both.collect()
}

/// Accuracy of the evaluations, at the most steps, with Wilson's intervals.
fn accuracy(runs: &[Shown<'_>]) -> Named {
    let points = |history: &RunHistory| {
        let point = |(&iteration, evaluation): (&u32, &Evaluation)| {
            let grades = evaluation.results.first()?;
            let interval = pass_at(&grades.solved_by, 1).map(|estimate| estimate.interval);
            Some(Point { x: f64::from(iteration), y: grades.accuracy, interval })
        };
        history.evaluations().iter().filter_map(point).collect()
    };
    let series = runs.iter().map(|run| Series {
        name: run.name.to_owned(),
        points: points(run.history),
        spread: Spread::Whiskers,
    });
    let figure =
        one_panel("accuracy", iterations(), axis("held-out accuracy", true), series.collect());
    Named { name: "accuracy", figure }
}

/// Accuracy against unmask steps, of the base and of the newest policy.
fn steps(runs: &[Shown<'_>]) -> Named {
    let mut series = vec![];
    let mut ticks = std::collections::BTreeSet::new();
    for run in runs {
        let evaluations = run.history.evaluations();
        let ends = [evaluations.first_key_value(), evaluations.last_key_value()];
        let mut ends: Vec<_> = ends.into_iter().flatten().collect();
        ends.dedup_by_key(|(iteration, _)| **iteration);
        for (&iteration, evaluation) in ends {
            let mut points: Vec<Point> = evaluation
                .results
                .iter()
                .map(|grades| Point {
                    x: f64::from(grades.steps),
                    y: grades.accuracy,
                    interval: pass_at(&grades.solved_by, 1).map(|estimate| estimate.interval),
                })
                .collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            ticks.extend(evaluation.results.iter().map(|grades| grades.steps));
            let policy =
                if iteration == 0 { "base".to_owned() } else { format!("iteration {iteration}") };
            let name = if runs.len() == 1 { policy } else { format!("{}, {policy}", run.name) };
            series.push(Series { name, points, spread: Spread::Whiskers });
        }
    }
    let x = Axis {
        title: "unmask steps".into(),
        is_log: true,
        ticks: ticks.into_iter().map(f64::from).collect(),
        ..Axis::default()
    };
    let figure =
        one_panel("accuracy against unmask steps", x, axis("held-out accuracy", true), series);
    Named { name: "steps", figure }
}

/// The parts of the reward, by name.
fn parts(runs: &[Shown<'_>]) -> Named {
    const PREFIX: &str = "part_";
    let mut series = vec![];
    for run in runs {
        for metric in run.history.metric_names(StageKind::Reward, PREFIX) {
            let part = metric.trim_start_matches(PREFIX);
            let name =
                if runs.len() == 1 { part.to_owned() } else { format!("{}, {part}", run.name) };
            let points = thinned(&run.history.metric(StageKind::Reward, &metric));
            series.push(Series { name, points, spread: Spread::Band });
        }
    }
    let figure = one_panel("parts of the reward", iterations(), axis("mean", false), series);
    Named { name: "reward-parts", figure }
}

/// Seconds that stages of a kind took, by iteration.
fn seconds(runs: &[Shown<'_>]) -> Named {
    let mut series = vec![];
    for run in runs {
        for kind in StageKind::ALL {
            let mut by_iteration: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
            let of_kind = run.history.stages().iter().filter(|(key, _)| key.kind == kind);
            for (key, done) in of_kind {
                by_iteration.entry(key.iteration).or_default().push(Done::took_ms(done) / 1e3);
            }
            let kind = kind.name();
            let name =
                if runs.len() == 1 { kind.to_owned() } else { format!("{}, {kind}", run.name) };
            series.push(Series { name, points: thinned(&by_iteration), spread: Spread::Band });
        }
    }
    series.retain(|series| !series.points.is_empty());
    let figure = one_panel("seconds of a stage", iterations(), axis("seconds", false), series);
    Named { name: "seconds", figure }
}

fn one_panel(title: &str, x: Axis, y: Axis, series: Vec<Series>) -> Figure {
    let panel = Panel { title: String::new(), x, y, series, level: None };
    Figure { title: title.to_owned(), panels: vec![panel] }
}

fn iterations() -> Axis {
    Axis { title: "iteration".into(), ..Axis::default() }
}

fn axis(title: &str, is_percent: bool) -> Axis {
    Axis { title: title.into(), is_percent, from_zero: is_percent, ..Axis::default() }
}

/// Means over neighbouring iterations, so many that all of them fit; each with the interval of 95 % of its
/// mean, x ± z s / sqrt(n) over its n numbers, where there are two or more.
fn thinned(values: &BTreeMap<u32, Vec<f64>>) -> Vec<Point> {
    let all: Vec<(&u32, &Vec<f64>)> = values.iter().collect();
    let together = all.len().div_ceil(MOST_POINTS).max(1);
    all.chunks(together).filter_map(joined).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of numbers in a chart")]
fn joined(iterations: &[(&u32, &Vec<f64>)]) -> Option<Point> {
    let numbers: Vec<f64> = iterations
        .iter()
        .flat_map(|(_, numbers)| numbers.iter().copied())
        .filter(|number| number.is_finite())
        .collect();
    let n = numbers.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n;
    let y = mean(&mut numbers.iter().copied());
    let x = iterations.iter().map(|(iteration, _)| f64::from(**iteration)).sum::<f64>();
    let interval = (numbers.len() > 1).then(|| {
        let squares = numbers.iter().map(|number| (number - y).powi(2)).sum::<f64>();
        let half = Z95 * (squares / (n - 1.0) / n).sqrt();
        Interval { low: y - half, high: y + half }
    });
    (!numbers.is_empty()).then_some(Point { x: x / iterations.len() as f64, y, interval })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_thinned_to_means_and_a_short_one_is_not() {
        let of = |count: u32| -> BTreeMap<u32, Vec<f64>> {
            (1..=count).map(|n| (n, vec![f64::from(n), f64::from(n) + 2.0])).collect()
        };
        let short = thinned(&of(3));
        assert_eq!(
            short.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>(),
            [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
        );
        let interval = short[0].interval.unwrap();
        assert!((interval.high - 2.0 - Z95).abs() < 1e-12 && interval.low + Z95 - 2.0 < 1e-12);
        let long = thinned(&of(2000));
        assert!(long.len() <= MOST_POINTS && long.len() > MOST_POINTS / 2, "{}", long.len());
        assert_eq!((long[0].x, long[0].y), (9.0, 10.0));
    }

    #[test]
    fn numbers_without_a_place_and_single_ones_have_no_interval() {
        let values = [(1, vec![f64::NAN]), (2, vec![0.5])].into_iter().collect();
        let points = thinned(&values);
        assert_eq!(points.len(), 1);
        assert_eq!((points[0].y, points[0].interval), (0.5, None));
    }
}
