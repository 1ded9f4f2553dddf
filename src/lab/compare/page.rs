//! A comparison for people: the table, the page around it, and the curves.

use agrpo_view::plot::{self, Axis, Figure, Panel, Series};
use agrpo_view::statistics::{Interval, mean, variance};
use agrpo_view::{JobsError, text::percent};

use super::file::Comparison;
use super::results::{Point, Results, Trace, Variant};

/// Mean and deviation of shares, in per cent.
fn share(shares: &[f64]) -> String {
    format!("{:.1} ± {:.1}", mean(shares) * 100.0, variance(shares).sqrt() * 100.0)
}

/// A number of every seed's last policy.
fn last(traces: &[Trace], of: impl Fn(&Point) -> f64) -> Vec<f64> {
    traces.iter().filter_map(|trace| trace.points.last()).map(of).collect()
}

/// The gain of every seed at this number of steps.
fn gain(traces: &[Trace], steps: u32) -> Vec<f64> {
    let at = |point: Option<&Point>| point?.accuracy.get(&steps).copied();
    let gain = |trace: &Trace| Some(at(trace.points.last())? - at(trace.points.first())?);
    traces.iter().filter_map(gain).collect()
}

/// A table in Markdown: means over seeds, ± the sample's standard deviation.
pub fn table(results: &Results) -> String {
    let first = results.steps.first().copied().unwrap_or_default();
    let of_steps = |of: &dyn Fn(u32) -> String| -> String {
        results.steps.iter().map(|&steps| format!(" {} |", of(steps))).collect()
    };
    let heads = of_steps(&|steps| format!("{steps} steps, %"));
    let mut lines = vec![
        format!("| variant | iterations | passes | gain at {first} steps |{heads} seconds |"),
        format!("|---|--:|--:|--:|{}--:|", of_steps(&|_| "--:".to_owned()).replace(' ', "")),
    ];
    let base = results.variants.first().map_or(&[][..], |variant| &variant.runs);
    let bases = of_steps(&|steps| {
        let points = base.iter().filter_map(|trace| trace.points.first());
        let shares = points.filter_map(|point| point.accuracy.get(&steps).copied());
        share(&shares.collect::<Vec<_>>())
    });
    lines.push(format!("| base | 0 | 0 | |{bases} |"));
    for Variant { name, runs: traces } in &results.variants {
        let accuracies = of_steps(&|steps| {
            let at = |point: &Point| point.accuracy.get(&steps).copied().unwrap_or(f64::NAN);
            share(&last(traces, at))
        });
        let iterations = traces.first().map_or(0, |trace| trace.iterations);
        lines.push(format!(
            "| {name} | {iterations} | {:.0} | {} |{accuracies} {:.0} |",
            mean(&last(traces, |point| point.passes)),
            share(&gain(traces, first)),
            mean(&last(traces, |point| point.seconds)),
        ));
    }
    lines.join("\n")
}

/// The page: what was compared, the table, the curves, and the file that they were made from.
pub fn page(comparison: &Comparison, results: &Results) -> String {
    let Comparison { name, file, about, .. } = comparison;
    let seeds = comparison.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let problems = results.problems;
    format!(
        "# {name}\n\n{about}\n\nSeeds {seeds}; means ± the sample's standard deviation over seeds. \
         Accuracy is greedy, on {problems}\nheld-out problems. A pass is one forward and backward pass of one \
         state, as the estimator asked for it;\nequal states are computed once, yet count. Seconds are those \
         of rollouts, rewards, gradients and updates,\nof each stage, over all workers.\n\n{}\n\n![accuracy against passes and seconds]({name}.svg)\n\n\
         Numbers of every seed: [{name}.json]({name}.json). Made from `{file}` by `agrpo compare`.\n",
        table(results)
    )
}

/// Accuracy against passes and against seconds, a band of one deviation over seeds.
pub fn chart(comparison: &Comparison, results: &Results) -> Result<String, JobsError> {
    let steps = results.steps.first().copied().unwrap_or_default();
    let panel = |title: &str, x: &str, of: &dyn Fn(&Point) -> f64| Panel {
        title: title.to_owned(),
        x: Axis { from_zero: true, ..Axis::linear(x) },
        y: Axis { is_percent: true, ..Axis::linear(&format!("accuracy at {steps} steps")) },
        series: results
            .variants
            .iter()
            .map(|variant| Series {
                name: variant.name.clone(),
                points: curve(&variant.runs, steps, of),
                spread: plot::Spread::Band,
            })
            .collect(),
        level: None,
    };
    let panels = vec![
        panel("by work", "forward and backward passes", &|point| point.passes),
        panel("by time", "seconds of stages", &|point| point.seconds),
    ];
    let base = results.variants.first().and_then(|variant| variant.runs.first());
    let share = base.and_then(|base| Some((base.seed, base.points.first()?.accuracy.get(&steps)?)));
    let base = share.map_or_else(String::new, |(seed, &share)| {
        format!(", base of seed {seed} {}", percent(share))
    });
    let seeds = comparison.seeds.len();
    let title = format!("{}: mean and deviation of {seeds} seeds{base}", comparison.name);
    plot::svg(&Figure { title, panels })
}

/// The mean of the seeds at every evaluation that all have.
fn curve(traces: &[Trace], steps: u32, x: &dyn Fn(&Point) -> f64) -> Vec<plot::Point> {
    let shortest = traces.iter().map(|trace| trace.points.len()).min().unwrap_or(0);
    let at = |n: usize| {
        let points = || traces.iter().map(|trace| &trace.points[n]);
        let share = |point: &Point| point.accuracy.get(&steps).copied().unwrap_or(f64::NAN);
        let shares: Vec<f64> = points().map(share).collect();
        let (y, deviation) = (mean(&shares), variance(&shares).sqrt());
        plot::Point {
            x: mean(&points().map(x).collect::<Vec<_>>()),
            y,
            interval: Some(Interval { low: y - deviation, high: y + deviation }),
        }
    };
    (0..shortest).map(at).collect()
}
