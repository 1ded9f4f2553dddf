//! The report of the evaluations: a table, the same as JSON, and a chart, from the rows of `row.rs`. A grid's table is in
//! `table.rs`.

use std::collections::BTreeSet;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{Cache, PositionRule, Protocol, Real, Run, RunId, Task};
use agrpo_view::plot::{self, Axis, Figure, Panel, Point, Series, Spread};
use agrpo_view::statistics::Estimate;

use super::row::{Cell, Row, row};
use super::table::{self, Best};
use super::trade::Trade;
use crate::args::{EvaluateArgs, PolicyChoice};
use crate::commands::computing::Stages;
use crate::commands::prelude::{Failure, Result, Serialize, Store, output};

/// The first columns of the table.
const HEAD: [&str; 7] =
    ["policy", "steps", "tokens/step", "passes", "temperature", "accuracy", "95 % interval"];

#[derive(Debug, Serialize)]
pub(super) struct Report {
    run: RunId,
    name: String,
    problems: u32,
    temperature: Real,
    samples: usize,
    position: PositionRule,
    cache: Cache,
    /// With one, `steps` is the largest possible number, and `tokens_per_step` the smallest.
    threshold: Option<Real>,
    block_tokens: u32,
    /// Of a benchmark task.
    protocol: Option<Protocol>,
    evaluations: Vec<Row>,
    /// The best trained policy of each column of a grid, where several were measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    best: Vec<Best>,
    /// How a grid is shown; none without one.
    #[serde(skip)]
    table: Option<Table>,
    /// None before the first update, and of a grid.
    trade: Option<Trade>,
    stages: Stages,
    store: String,
}

/// How a grid is shown.
#[derive(Debug)]
struct Table {
    /// Whether of trained policies only the best are.
    is_best_alone: bool,
}

impl Report {
    pub(super) async fn read(
        store: &Store,
        measured: &Run,
        run: RunId,
        (cells, settled): (Vec<Cell>, Vec<Settled>),
        args: &EvaluateArgs,
    ) -> Result<Self> {
        let reused = settled.iter().filter(|one| one.reused).count() as u64;
        let stages = Stages { computed: settled.len() as u64 - reused, reused };
        let first = cells.first().map(|cell| (cell.sampler.clone(), cell.problems));
        let (sampler, problems) =
            first.ok_or_else(|| Failure::unexpected("there is nothing to evaluate"))?;
        let (mut evaluations, mut rest) = (vec![], &*settled);
        for cell in &cells {
            let (own, others) = rest.split_at(cell.stages.len());
            evaluations.push(row(store, cell, own).await?);
            rest = others;
        }
        let is_best_alone = args.iteration.contains(&PolicyChoice::Best)
            && args
                .iteration
                .iter()
                .all(|of| matches!(of, PolicyChoice::Best | PolicyChoice::Base));
        let table = (!args.grid.is_empty()).then_some(Table { is_best_alone });
        let trained = evaluations.iter().filter(|row| row.iteration > 0);
        let are_several = trained.map(|row| row.iteration).collect::<BTreeSet<_>>().len() > 1;
        let best = match table {
            Some(_) if are_several || is_best_alone => table::best(&evaluations),
            _ => vec![],
        };
        let trade = match table {
            None => {
                let points =
                    evaluations.iter().map(|row| (row.iteration, row.steps, row.accuracy.share));
                Trade::of(&points.collect::<Vec<_>>(), sampler.completion_tokens)
            }
            Some(_) => None,
        };
        Ok(Self {
            run,
            name: measured.config().name.clone(),
            problems,
            temperature: sampler.temperature,
            samples: evaluations.first().map_or(1, |row| row.solved_by.len() - 1),
            position: sampler.position,
            cache: sampler.cache,
            threshold: sampler.threshold,
            block_tokens: sampler.block_tokens,
            protocol: match &measured.config().task {
                Task::Benchmark(task) => Some(task.protocol),
                _ => None,
            },
            evaluations,
            best,
            table,
            trade,
            stages,
            store: store.url().to_owned(),
        })
    }

    pub(super) fn describe(&self) -> String {
        if let Some(Table { is_best_alone }) = self.table {
            let table = table::describe(&self.evaluations, &self.best, is_best_alone);
            return format!("{}\n\n{table}", self.title());
        }
        let tries: Vec<usize> = self.tries().filter(|&n| n > 1).collect();
        let mut head = HEAD.map(str::to_owned).to_vec();
        let (most, least) = if self.threshold.is_some() { ("<= ", ">= ") } else { ("", "") };
        head.extend(tries.iter().map(|n| format!("pass@{n}")));
        head.push("stage".to_owned());
        let mut rows = vec![head];
        for row in &self.evaluations {
            let Estimate { share, interval } = row.accuracy;
            let mut cells = vec![
                row.policy.clone(),
                format!("{most}{}", row.steps),
                format!("{least}{}", row.tokens_per_step),
                format!("{:.2}", row.passes),
                self.temperature.to_string(),
                output::percent(share),
                format!("{} to {}", output::percent(interval.low), output::percent(interval.high)),
            ];
            cells.extend(tries.iter().map(|n| output::percent(row.pass_at[n].share)));
            cells.push(match row.shards.len() {
                0 => row.stage.short(),
                shards => format!("{} and {} more", row.stage.short(), shards - 1),
            });
            rows.push(cells);
        }
        let mut lines = vec![self.title(), String::new(), output::columns(&rows)];
        lines.extend(self.trade.as_ref().map(|trade| format!("\n{}", trade.describe())));
        lines.join("\n")
    }

    fn title(&self) -> String {
        let Self { name, problems, temperature, samples, .. } = self;
        let how = match temperature.get() {
            0.0 => "greedy".to_owned(),
            _ => format!("{samples} completions each at temperature {temperature}"),
        };
        let cache = match self.cache {
            Cache::None => String::new(),
            cache => format!(", {cache} cache"),
        };
        let threshold = self.threshold.map(|value| format!(", threshold {value}"));
        let threshold = threshold.unwrap_or_default();
        let run = self.run.short();
        let blocks = match self.table {
            None => String::new(),
            Some(_) => format!(", blocks of {}", output::count(self.block_tokens.into(), "token")),
        };
        let protocol = self.protocol.map(|protocol| format!(", protocol {protocol}"));
        let protocol = protocol.unwrap_or_default();
        format!(
            "{name} ({run}): {problems} held-out problems, {how}{cache}{threshold}{blocks}{protocol}"
        )
    }

    /// The chart: accuracy by steps, and where several completions were drawn, pass@n at most steps.
    pub(super) fn chart(&self) -> Result<String> {
        let by_steps = |row: &Row| vec![point(f64::from(row.steps), row.accuracy)];
        let mut panels = vec![Panel {
            title: "accuracy by unmask steps, intervals of 95 %".to_owned(),
            x: Axis::log("unmask steps of a completion", self.steps().map(f64::from).collect()),
            y: Axis::share("accuracy"),
            series: self.series(Spread::Whiskers, |_| true, by_steps),
            level: self.trade.as_ref().map(|Trade { base_steps, base_accuracy, .. }| {
                (format!("base at {}", output::count((*base_steps).into(), "step")), *base_accuracy)
            }),
        }];
        if let Some(most) = self.steps().next().filter(|_| self.samples > 1) {
            let by_tries = |row: &Row| {
                row.pass_at.iter().map(|(&n, &estimate)| point(count(n), estimate)).collect()
            };
            let steps = output::count(most.into(), "step");
            panels.push(Panel {
                title: format!("pass@n at {steps}, intervals of 95 %"),
                x: Axis::log("completions n", self.tries().map(count).collect()),
                y: Axis::share("share of problems solved"),
                series: self.series(Spread::Band, |row| row.steps == most, by_tries),
                level: None,
            });
        }
        Ok(plot::svg(&Figure { title: self.title(), panels })?)
    }

    /// The numbers of completions that have a share.
    fn tries(&self) -> impl Iterator<Item = usize> {
        self.evaluations.first().into_iter().flat_map(|row| row.pass_at.keys().copied())
    }

    /// The grid's numbers of steps, most first.
    fn steps(&self) -> impl Iterator<Item = u32> {
        let first = self.evaluations.first().map(|row| row.iteration);
        let rows = self.evaluations.iter();
        rows.filter(move |row| Some(row.iteration) == first).map(|row| row.steps)
    }

    /// One series a policy, from the rows that `takes` picks.
    fn series(
        &self,
        spread: Spread,
        takes: impl Fn(&Row) -> bool,
        points: impl Fn(&Row) -> Vec<Point>,
    ) -> Vec<Series> {
        let rows: Vec<&Row> = self.evaluations.iter().filter(|row| takes(row)).collect();
        let of_policy = |rows: &[&Row]| Series {
            name: rows[0].policy.clone(),
            points: rows.iter().flat_map(|row| points(row)).collect(),
            spread,
        };
        rows.chunk_by(|one, next| one.policy == next.policy).map(of_policy).collect()
    }
}

fn point(x: f64, estimate: Estimate) -> Point {
    Point { x, y: estimate.share, interval: Some(estimate.interval) }
}

#[expect(clippy::cast_precision_loss, reason = "a number of completions")]
fn count(n: usize) -> f64 {
    n as f64
}
