//! A comparison for people: the table, the page around it, the numbers as JSON, and the curves.

use super::file::Comparison;
use super::results::{Point, Results, Spread, Trace};
use crate::exit::{Exit, Failure};
use crate::plot::{self, Axis, Figure, Panel, Series};
use crate::statistics::Interval;
use crate::tally::percent;

/// Mean and deviation of a share, in per cent.
fn share(spread: Spread) -> String {
    format!("{:.1} ± {:.1}", spread.mean * 100.0, spread.deviation * 100.0)
}

/// A number of every seed's last policy.
fn last(traces: &[Trace], of: impl Fn(&Point) -> f64) -> Spread {
    let values: Vec<f64> = traces.iter().filter_map(|trace| trace.points.last()).map(of).collect();
    Spread::of(&values)
}

/// The gain of every seed at the first number of steps.
fn gain(traces: &[Trace], steps: u32) -> Spread {
    let of_trace = |trace: &Trace| {
        let of =
            |point: Option<&Point>| point.and_then(|point| point.accuracy.get(&steps).copied());
        Some(of(trace.points.last())? - of(trace.points.first())?)
    };
    Spread::of(&traces.iter().filter_map(of_trace).collect::<Vec<_>>())
}

/// A table in Markdown: means over seeds, ± the sample's standard deviation.
pub(super) fn table(results: &Results) -> String {
    let first = results.steps.first().copied().unwrap_or_default();
    let of_steps = |of: &dyn Fn(u32) -> String| -> String {
        results.steps.iter().map(|&steps| format!(" {} |", of(steps))).collect()
    };
    let heads = of_steps(&|steps| format!("{steps} steps, %"));
    let mut lines = vec![
        format!("| variant | iterations | passes | gain at {first} steps |{heads} seconds |"),
        format!("|---|--:|--:|--:|{}--:|", of_steps(&|_| "--:".to_owned()).replace(' ', "")),
    ];
    let base = results.variants.first().map(|(_, traces)| traces.as_slice()).unwrap_or_default();
    let bases = of_steps(&|steps| {
        let points = base.iter().filter_map(|trace| trace.points.first());
        let values = points.filter_map(|point| point.accuracy.get(&steps).copied());
        share(Spread::of(&values.collect::<Vec<_>>()))
    });
    lines.push(format!("| base | 0 | 0 | |{bases} |"));
    for (name, traces) in &results.variants {
        let accuracies = of_steps(&|steps| {
            let at = |point: &Point| point.accuracy.get(&steps).copied().unwrap_or(f64::NAN);
            share(last(traces, at))
        });
        let iterations = traces.first().map_or(0, |trace| trace.iterations);
        lines.push(format!(
            "| {name} | {iterations} | {:.0} | {} |{accuracies} {:.0} |",
            last(traces, |point| point.passes).mean,
            share(gain(traces, first)),
            last(traces, |point| point.seconds).mean,
        ));
    }
    lines.join("\n")
}

/// The page: what was compared, the table, the curves, and the command that made them.
pub(super) fn page(comparison: &Comparison, results: &Results, command: &str) -> String {
    let Comparison { name, about, .. } = comparison;
    let seeds = comparison.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let problems = results.problems;
    format!(
        "# {name}\n\n{about}\n\nSeeds {seeds}; means ± the sample's standard deviation over seeds. \
         Accuracy is greedy, on {problems}\nheld-out problems. A pass is one forward and backward pass of one \
         completion, as the estimator asked for\nit. Seconds are those of rollouts, rewards, gradients and \
         updates, one thread each, over all workers.\n\n{}\n\n![accuracy against passes and seconds]({name}.svg)\n\n\
         Numbers of every seed: [{name}.json]({name}.json). Made by\n\n```\n{command}\n```\n",
        table(results)
    )
}

/// Everything as JSON.
pub(super) fn numbers(results: &Results) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(results).map_err(|error| {
        Failure::new(Exit::Unexpected, format!("cannot write the numbers as JSON: {error}"))
    })?;
    Ok(text + "\n")
}

/// Accuracy against passes and against seconds, a band of one deviation over seeds.
pub(super) fn chart(comparison: &Comparison, results: &Results) -> Result<String, Failure> {
    let steps = results.steps.first().copied().unwrap_or_default();
    let panel = |title: &str, x: &str, of: &dyn Fn(&Point) -> f64| Panel {
        title: title.to_owned(),
        x: Axis { title: x.to_owned(), from_zero: true, ..Axis::default() },
        y: Axis {
            title: format!("accuracy at {steps} steps"),
            is_percent: true,
            ..Axis::default()
        },
        series: results
            .variants
            .iter()
            .map(|(name, traces)| Series {
                name: name.clone(),
                points: curve(traces, steps, of),
                spread: plot::Spread::Band,
            })
            .collect(),
        level: None,
    };
    let panels = vec![
        panel("by work", "forward and backward passes", &|point| point.passes),
        panel("by time", "seconds of one thread", &|point| point.seconds),
    ];
    let base = results.variants.first().and_then(|(_, traces)| traces.first()?.points.first());
    let base = base.and_then(|point| point.accuracy.get(&steps));
    let base =
        base.map_or_else(String::new, |&share| format!(", base of seed 1 {}", percent(share)));
    let seeds = comparison.seeds.len();
    let title = format!("{}: mean and deviation of {seeds} seeds{base}", comparison.name);
    plot::svg(&Figure { title, panels })
}

/// The mean of the seeds at every evaluation that all have.
fn curve(traces: &[Trace], steps: u32, x: &dyn Fn(&Point) -> f64) -> Vec<plot::Point> {
    let shortest = traces.iter().map(|trace| trace.points.len()).min().unwrap_or(0);
    let at = |n: usize| {
        let column = |of: &dyn Fn(&Point) -> f64| {
            Spread::of(&traces.iter().map(|trace| of(&trace.points[n])).collect::<Vec<_>>())
        };
        let y = column(&|point| point.accuracy.get(&steps).copied().unwrap_or(f64::NAN));
        plot::Point {
            x: column(x).mean,
            y: y.mean,
            interval: Some(Interval { low: y.mean - y.deviation, high: y.mean + y.deviation }),
        }
    };
    (0..shortest).map(at).collect()
}
