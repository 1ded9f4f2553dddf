//! The report of the evaluations: a table, the same as JSON, and a chart. Shares and intervals are computed by
//! `statistics.rs` from the histograms that the stages stored.

use std::collections::BTreeMap;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{
    ArtifactDigest, Cache, Evaluation, EvaluationResult, EvaluationSpec, PositionRule, Real, Run,
    RunId, Sampler, StageDigest, Together,
};
use agrpo_view::plot::{self, Axis, Figure, Panel, Point, Series, Spread};
use agrpo_view::statistics::{Estimate, pass_at};

use crate::commands::computing::Stages;
use crate::commands::prelude::{Failure, Result, Serialize, Store, output};
use crate::commands::resolve::Policy;

/// The first columns of the table.
const HEAD: [&str; 7] =
    ["policy", "steps", "tokens/step", "passes", "temperature", "accuracy", "95 % interval"];

/// One policy at one number of steps, to be evaluated.
pub(super) struct Cell {
    pub(super) policy: Policy,
    pub(super) sampler: Sampler,
    pub(super) problems: u32,
    /// One, or the shards.
    pub(super) stages: Vec<EvaluationSpec>,
}

/// The same, evaluated.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    policy: String,
    iteration: u32,
    artifact: ArtifactDigest,
    /// The stage; the first one of an evaluation in shards.
    stage: StageDigest,
    /// All stages of an evaluation in shards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards: Vec<StageDigest>,
    /// Whether all of it was in the store.
    reused: bool,
    steps: u32,
    tokens_per_step: u32,
    /// Forward passes of a completion, in the mean.
    passes: f64,
    correct: u64,
    accuracy: Estimate,
    solved_by: Vec<u64>,
    /// By the number of completions: 1, 2, 4 and so on, and all.
    pass_at: BTreeMap<usize, Estimate>,
}

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
    evaluations: Vec<Row>,
    /// None before the first update.
    trade: Option<Trade>,
    stages: Stages,
    store: String,
}

/// How few steps the newest policy needs to be as accurate as the base.
#[derive(Debug, Serialize)]
struct Trade {
    /// The base's most steps, and its share there.
    base_steps: u32,
    base_accuracy: f64,
    /// The fewest steps at which the newest policy is as accurate; none if it never is or the base is never right.
    newest_steps: Option<u32>,
    newest_accuracy: Option<f64>,
    /// The newest policy's most steps, and whether more are impossible.
    most_steps: u32,
    is_most_possible: bool,
}

impl Report {
    pub(super) async fn read(
        store: &Store,
        run: &Run,
        cells: Vec<Cell>,
        settled: Vec<Settled>,
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
        Ok(Self {
            run: run.id(),
            name: run.config().name.clone(),
            problems,
            temperature: sampler.temperature,
            samples: evaluations.first().map_or(1, |row| row.solved_by.len() - 1),
            position: sampler.position,
            cache: sampler.cache,
            threshold: sampler.threshold,
            trade: trade(&evaluations, sampler.completion_tokens),
            evaluations,
            stages,
            store: store.url().to_owned(),
        })
    }

    pub(super) fn describe(&self) -> String {
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
        format!("{name} ({run}): {problems} held-out problems, {how}{cache}{threshold}")
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

impl Trade {
    fn describe(&self) -> String {
        let Self { base_steps, base_accuracy, most_steps, .. } = *self;
        if base_accuracy == 0.0 {
            let steps = output::count(base_steps.into(), "step");
            return format!("the base is right nowhere at {steps}: nothing to match");
        }
        let needs = match (self.newest_steps, self.newest_accuracy) {
            (Some(steps), Some(share)) => format!("{steps} ({})", output::percent(share)),
            _ if self.is_most_possible => {
                format!("it does not match it even at {most_steps}, the most that there can be")
            }
            _ => format!("more than {most_steps}, the most that were evaluated"),
        };
        let base = output::percent(base_accuracy);
        format!(
            "steps that the newest policy needs to match the base at {base_steps} ({base}): {needs}"
        )
    }
}

/// Compares point estimates, whose intervals stand beside them. `tokens` is the most steps of a completion.
fn trade(rows: &[Row], tokens: u32) -> Option<Trade> {
    let base = rows.iter().filter(|row| row.iteration == 0).max_by_key(|row| row.steps)?;
    let newest = || rows.iter().filter(|row| row.iteration > 0);
    let most_steps = newest().map(|row| row.steps).max()?;
    let enough = newest()
        .filter(|row| base.accuracy.share > 0.0 && row.accuracy.share >= base.accuracy.share)
        .min_by_key(|row| row.steps);
    Some(Trade {
        base_steps: base.steps,
        base_accuracy: base.accuracy.share,
        newest_steps: enough.map(|row| row.steps),
        newest_accuracy: enough.map(|row| row.accuracy.share),
        most_steps,
        is_most_possible: most_steps == tokens,
    })
}

fn corrupt(stage: StageDigest, why: impl std::fmt::Display) -> Failure {
    Failure::data(format!("the evaluation of stage {stage} cannot be read: {why}"))
        .hint(format!("agrpo replay {}", stage.short()))
}

async fn document(store: &Store, one: &Settled) -> Result<Evaluation> {
    let stage = one.manifest.stage;
    let blob = one.manifest.output("evaluation").ok_or_else(|| corrupt(stage, "no output"))?;
    let bytes = store.cas.get(blob).await?;
    Evaluation::from_bytes(&bytes).map_err(|error| corrupt(stage, error))
}

/// The row of a cell, from its stage or its shards.
async fn row(store: &Store, cell: &Cell, settled: &[Settled]) -> Result<Row> {
    let stages: Vec<StageDigest> = settled.iter().map(|one| one.manifest.stage).collect();
    let stage = *stages.first().ok_or_else(|| Failure::unexpected("a cell has no stage"))?;
    let mut documents = vec![];
    for one in settled {
        documents.push(document(store, one).await?);
    }
    let corrupt = |why: &str| corrupt(stage, why);
    let document = Evaluation::whole(&documents.iter().collect::<Vec<_>>());
    let document = document.ok_or_else(|| corrupt("its shards do not fit together"))?;
    let result = document.results.into_iter().next();
    let EvaluationResult { correct, solved_by, .. } = result.ok_or_else(|| corrupt("no result"))?;
    let accuracy = pass_at(&solved_by, 1).ok_or_else(|| corrupt("no completion"))?;
    let metrics: Vec<_> = settled.iter().map(|one| &one.manifest.metrics).collect();
    let passes = BTreeMap::whole(&metrics);
    let passes = passes.and_then(|all| all.get(agrpo_spec::metrics::PASSES).copied());
    let passes = passes.ok_or_else(|| corrupt("no number of passes"))?;
    let draws = solved_by.len() - 1;
    let doubled = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < draws);
    let tries = doubled.chain([draws]);
    Ok(Row {
        policy: output::policy(cell.policy.iteration),
        iteration: cell.policy.iteration,
        artifact: cell.policy.artifact,
        stage,
        shards: if stages.len() > 1 { stages } else { vec![] },
        reused: settled.iter().all(|one| one.reused),
        steps: cell.sampler.steps,
        tokens_per_step: cell.sampler.completion_tokens / cell.sampler.steps,
        passes,
        correct,
        accuracy,
        pass_at: tries.filter_map(|n| Some((n, pass_at(&solved_by, n)?))).collect(),
        solved_by,
    })
}

fn point(x: f64, estimate: Estimate) -> Point {
    Point { x, y: estimate.share, interval: Some(estimate.interval) }
}

#[expect(clippy::cast_precision_loss, reason = "a number of completions")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use agrpo_view::statistics::Interval;

    const MOST: u32 = 8;

    /// One line of the trade between shares by steps of the base and of the newest policy.
    fn line(base: &[(u32, f64)], newest: &[(u32, f64)]) -> String {
        let row = |iteration: u32, &(steps, share): &(u32, f64)| Row {
            policy: String::new(),
            iteration,
            artifact: ArtifactDigest::of(b""),
            stage: "0".repeat(64).parse().unwrap(),
            shards: vec![],
            reused: false,
            steps,
            tokens_per_step: MOST / steps,
            passes: f64::from(steps),
            correct: 0,
            accuracy: Estimate { share, interval: Interval { low: 0.0, high: 1.0 } },
            solved_by: vec![],
            pass_at: BTreeMap::new(),
        };
        let bases = base.iter().map(|cell| row(0, cell));
        let rows: Vec<_> = bases.chain(newest.iter().map(|cell| row(9, cell))).collect();
        trade(&rows, MOST).map(|trade| trade.describe()).unwrap_or_default()
    }

    #[test]
    fn the_trade_says_only_what_was_measured() {
        insta::assert_snapshot!(line(&[(8, 0.3), (4, 0.2)], &[(8, 0.6), (4, 0.4)]), @"steps that the newest policy needs to match the base at 8 (30.0%): 4 (40.0%)");
        insta::assert_snapshot!(line(&[(8, 0.3)], &[(8, 0.2)]), @"steps that the newest policy needs to match the base at 8 (30.0%): it does not match it even at 8, the most that there can be");
        insta::assert_snapshot!(line(&[(4, 0.3)], &[(4, 0.2)]), @"steps that the newest policy needs to match the base at 4 (30.0%): more than 4, the most that were evaluated");
        insta::assert_snapshot!(line(&[(8, 0.0)], &[(8, 0.2)]), @"the base is right nowhere at 8 steps: nothing to match");
        assert_eq!(line(&[(8, 0.3)], &[]), "", "no update, no trade");
    }
}
