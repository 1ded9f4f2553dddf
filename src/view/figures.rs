//! The charts of runs: which metrics, how thinned out, with which intervals. `plot.rs` draws them.
//!
//! A curve has no more points than pixels: neighbouring iterations are joined to their mean, with its interval.

use std::collections::BTreeSet;

use agrpo_spec::{EvaluationResult, StageKind, metrics};

use crate::history::{Numbers, RunHistory};
use crate::plot::{Axis, Figure, Panel, Point, Series, Spread};
use crate::statistics::{Interval, Z95, interval, mean, variance};
use crate::text::policy;

const MOST_POINTS: usize = 120;

/// A chart with a name that suits a file.
#[derive(Clone, Debug)]
pub struct Named {
    /// As in `reward.svg`.
    pub name: &'static str,
    /// The chart.
    pub figure: Figure,
}

/// A run and the name of its curves.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The curves' name.
    pub name: &'a str,
    /// The run.
    pub history: &'a RunHistory,
}

impl Shown<'_> {
    /// The name of one of this run's curves, with the run's name if the chart has several runs.
    fn curve(&self, what: &str, runs: &[Self]) -> String {
        if runs.len() == 1 { what.to_owned() } else { format!("{}, {what}", self.name) }
    }
}

/// Every chart for which there are numbers.
pub fn all(runs: &[Shown<'_>]) -> Vec<Named> {
    let metric = |name, title, kind, metric| {
        curve(runs, name, title, &|history| history.metric(kind, metric))
    };
    let entropy = "entropy of a written token, nats";
    let mut charts = vec![
        metric("reward", "mean reward", StageKind::Reward, metrics::REWARD),
        accuracy(runs),
        steps(runs),
        parts(runs),
        metric("gradient-norm", "gradient norm", StageKind::Update, metrics::GRAD_NORM),
        metric("clip-share", "share of clipped ratios", StageKind::Gradient, metrics::CLIP_SHARE),
        metric("entropy", entropy, StageKind::Rollout, metrics::ENTROPY),
        curve(runs, "length", "tokens of a completion", &length),
        seconds(runs),
    ];
    charts.retain(|chart| {
        chart.figure.panels.iter().flat_map(|panel| &panel.series).any(|s| !s.points.is_empty())
    });
    charts
}

fn curve(
    runs: &[Shown<'_>],
    name: &'static str,
    title: &str,
    values: &dyn Fn(&RunHistory) -> Numbers,
) -> Named {
    let curves = runs.iter().map(|run| (run.name.to_owned(), thinned(&values(run.history))));
    chart(name, title, (Axis::linear("iteration"), Axis::linear(title)), Spread::Band, curves)
}

/// Tokens of a completion that were written, by iteration and shard.
fn length(history: &RunHistory) -> Numbers {
    let tokens = history.metric(StageKind::Rollout, metrics::TOKENS);
    let completions = history.metric(StageKind::Reward, metrics::COMPLETIONS);
    let both = tokens.into_iter().filter_map(|(iteration, tokens)| {
        let counts = completions.get(&iteration)?;
        let lengths = tokens.iter().zip(counts).map(|(tokens, count)| tokens / count);
        Some((iteration, lengths.collect()))
    });
    both.collect()
}

/// Accuracy of the evaluations, at the most steps, with Wilson's intervals.
fn accuracy(runs: &[Shown<'_>]) -> Named {
    let curves = runs.iter().map(|run| {
        let points = run.history.evaluations.iter().filter_map(|(&iteration, evaluation)| {
            Some(point(iteration, evaluation.results.first()?))
        });
        (run.name.to_owned(), points.collect())
    });
    let axes = (Axis::linear("iteration"), Axis::share("held-out accuracy"));
    chart("accuracy", "accuracy", axes, Spread::Whiskers, curves)
}

fn steps(runs: &[Shown<'_>]) -> Named {
    let (mut curves, mut ticks) = (vec![], BTreeSet::new());
    for run in runs {
        let evaluations = &run.history.evaluations;
        let ends = [evaluations.first_key_value(), evaluations.last_key_value()];
        let mut ends: Vec<_> = ends.into_iter().flatten().collect();
        ends.dedup_by_key(|(iteration, _)| **iteration);
        for (&iteration, evaluation) in ends {
            // A curve is about one length, that of the run's own steps.
            let length = evaluation.results.first().and_then(|first| first.completion_tokens);
            let of_length = |grades: &&EvaluationResult| grades.completion_tokens == length;
            let results = || evaluation.results.iter().filter(of_length);
            let mut points: Vec<Point> = results().map(|one| point(one.steps, one)).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            ticks.extend(results().map(|grades| grades.steps));
            curves.push((run.curve(&policy(iteration), runs), points));
        }
    }
    let x = Axis::log("unmask steps", ticks.into_iter().map(f64::from).collect());
    let axes = (x, Axis::share("held-out accuracy"));
    chart("steps", "accuracy against unmask steps", axes, Spread::Whiskers, curves)
}

fn point(x: u32, grades: &EvaluationResult) -> Point {
    Point { x: x.into(), y: grades.accuracy, interval: interval(grades) }
}

fn parts(runs: &[Shown<'_>]) -> Named {
    const PREFIX: &str = metrics::PART_PREFIX;
    let mut curves = vec![];
    for run in runs {
        for metric in run.history.metric_names(StageKind::Reward, PREFIX) {
            let points = thinned(&run.history.metric(StageKind::Reward, &metric));
            curves.push((run.curve(metric.trim_start_matches(PREFIX), runs), points));
        }
    }
    let axes = (Axis::linear("iteration"), Axis::linear("mean"));
    chart("reward-parts", "parts of the reward", axes, Spread::Band, curves)
}

fn seconds(runs: &[Shown<'_>]) -> Named {
    let mut curves = vec![];
    for run in runs {
        for kind in StageKind::ALL {
            let seconds = run.history.numbers(kind, |done| Some(done.took_ms() / 1e3));
            curves.push((run.curve(kind.name(), runs), thinned(&seconds)));
        }
    }
    curves.retain(|(_, points)| !points.is_empty());
    let axes = (Axis::linear("iteration"), Axis::linear("seconds"));
    chart("seconds", "seconds of a stage", axes, Spread::Band, curves)
}

/// A chart of one panel, from its curves by their names.
fn chart(
    name: &'static str,
    title: &str,
    (x, y): (Axis, Axis),
    spread: Spread,
    curves: impl IntoIterator<Item = (String, Vec<Point>)>,
) -> Named {
    let series = curves.into_iter().map(|(name, points)| Series { name, points, spread });
    let panel = Panel { title: String::new(), x, y, series: series.collect(), level: None };
    Named { name, figure: Figure { title: title.to_owned(), panels: vec![panel] } }
}

/// Means over neighbouring iterations, each with its interval of 95 %: x ± z s / sqrt(n) over its n > 1 numbers.
fn thinned(values: &Numbers) -> Vec<Point> {
    let all: Vec<(&u32, &Vec<f64>)> = values.iter().collect();
    let together = all.len().div_ceil(MOST_POINTS).max(1);
    all.chunks(together).filter_map(joined).collect()
}

fn joined(iterations: &[(&u32, &Vec<f64>)]) -> Option<Point> {
    let numbers = iterations.iter().flat_map(|(_, numbers)| numbers.iter().copied());
    let numbers: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
    let numbered: Vec<f64> = iterations.iter().map(|(number, _)| f64::from(**number)).collect();
    let y = mean(&numbers);
    let interval = (numbers.len() > 1).then(|| {
        let half = Z95 * (variance(&numbers) / numbers.len() as f64).sqrt();
        Interval { low: y - half, high: y + half }
    });
    (!numbers.is_empty()).then_some(Point { x: mean(&numbered), y, interval })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_thinned_to_means_and_a_short_one_is_not() {
        let of = |count: u32| -> Numbers {
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
