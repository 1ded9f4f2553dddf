//! A comparison for people: the table, the page around it, and the curves.

use agrpo_view::ViewError;
use agrpo_view::plot::{self, Axis, Figure, Panel, Series};
use agrpo_view::statistics::Interval;
use agrpo_view::text::percent;

use super::file::Comparison;
use super::results::{Point, Results, Spread, Trace, Variant};

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
        let values = points.filter_map(|point| point.accuracy.get(&steps).copied());
        share(Spread::of(&values.collect::<Vec<_>>()))
    });
    lines.push(format!("| base | 0 | 0 | |{bases} |"));
    for Variant { name, runs: traces } in &results.variants {
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

/// The page: what was compared, the table, the curves, and the file that they were made from.
pub fn page(comparison: &Comparison, results: &Results) -> String {
    let Comparison { name, file, about, .. } = comparison;
    let seeds = comparison.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let problems = results.problems;
    format!(
        "# {name}\n\n{about}\n\nSeeds {seeds}; means ± the sample's standard deviation over seeds. \
         Accuracy is greedy, on {problems}\nheld-out problems. A pass is one forward and backward pass of one \
         state, as the estimator asked for it;\nequal states are computed once, yet count. Seconds are those \
         of rollouts, rewards, gradients and updates,\none thread each, over all workers.\n\n{}\n\n![accuracy against passes and seconds]({name}.svg)\n\n\
         Numbers of every seed: [{name}.json]({name}.json). Made from `{file}` by `agrpo compare`.\n",
        table(results)
    )
}

/// Accuracy against passes and against seconds, a band of one deviation over seeds.
pub fn chart(comparison: &Comparison, results: &Results) -> Result<String, ViewError> {
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
        panel("by time", "seconds of one thread", &|point| point.seconds),
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
