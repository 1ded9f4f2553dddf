//! A run's numbers, iteration by iteration: one row for each policy that the run has made.
//!
//! Row 0 is the base. A row's time is when the stage that made its policy ended, by its worker's clock; an
//! iteration whose last update is not done has no row yet. Nothing is thinned out.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, Base, Evaluation, EvaluationResult, Run, StageKey, StageKind};
use agrpo_view::history::{Done, RunHistory};
use agrpo_view::statistics::pass_at;

use crate::columns::{Join, join, name};

/// How far a share may be from an accuracy and still be the same number, summed up another way.
const SAME: f64 = 1e-9;

/// What is known of a policy and of how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Iterations count from 1; 0 is the base.
    pub iteration: u32,
    /// When the policy was there, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The policy.
    pub policy: ArtifactDigest,
    /// By column.
    pub metrics: BTreeMap<String, f64>,
}

/// A chunk of the base's fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Optimizer steps done at its end.
    pub steps: u64,
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// By column.
    pub metrics: BTreeMap<String, f64>,
}

/// A run's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// When its first stage began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// By iteration.
    pub rows: Vec<Row>,
    /// In the order of the steps.
    pub sft: Vec<Chunk>,
}

type Metrics = BTreeMap<String, f64>;

impl History {
    /// The numbers of a run so far.
    pub fn of(history: &RunHistory) -> Self {
        Self::read(history.run(), history.stages(), history.evaluations())
    }

    /// The same from its parts.
    pub fn read(
        run: &Run,
        stages: &BTreeMap<StageKey, Done>,
        evaluations: &BTreeMap<u32, Evaluation>,
    ) -> Self {
        let began_unix_ms = stages.values().map(|done| done.started_unix_ms).min().unwrap_or(0);
        let mut policies = BTreeMap::new();
        if let Base::Checkpoint(checkpoint) = run.base() {
            policies.insert(0, (checkpoint.folder, began_unix_ms));
        }
        for (key, done) in stages {
            let iteration = match key.kind {
                StageKind::Sft if key.iteration + 1 == run.sft_chunks() => 0,
                StageKind::Update if key.inner == run.config().estimator.inner_updates => {
                    key.iteration
                }
                _ => continue,
            };
            if let Some(&policy) = done.outputs.get("policy") {
                policies.insert(iteration, (policy, ended(done)));
            }
        }
        // Sft's numbers have an axis of their own.
        let mut by_iteration: BTreeMap<u32, Vec<(&StageKey, &Done)>> = BTreeMap::new();
        for (key, done) in stages.iter().filter(|(key, _)| key.kind != StageKind::Sft) {
            by_iteration.entry(key.iteration).or_default().push((key, done));
        }
        let rows = policies.into_iter().map(|(iteration, (policy, unix_ms))| {
            let of_row = by_iteration.get(&iteration).map(Vec::as_slice).unwrap_or_default();
            let mut metrics = joined(of_row);
            metrics.extend(seconds(of_row));
            metrics.extend(evaluated(of_row, evaluations.get(&iteration)));
            Row { iteration, unix_ms, policy, metrics }
        });
        let rows = if stages.is_empty() { vec![] } else { rows.collect() };
        Self { began_unix_ms, rows, sft: chunks(stages) }
    }

    /// Every column of the rows, those of one group together.
    pub fn columns(&self) -> BTreeSet<&str> {
        self.rows.iter().flat_map(|row| row.metrics.keys().map(String::as_str)).collect()
    }
}

/// When a stage's record was written.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "durations are not negative, and an age of the universe fits"
)]
fn ended(done: &Done) -> u64 {
    done.started_unix_ms + done.took_ms().round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "numbers of stages")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Every metric of training stages, joined over shards and inner updates.
fn joined(stages: &[(&StageKey, &Done)]) -> Metrics {
    let mut found: BTreeMap<(StageKind, &str), Vec<&Done>> = BTreeMap::new();
    for &(key, done) in stages.iter().filter(|(key, _)| key.kind != StageKind::Evaluation) {
        for metric in done.metrics.keys() {
            found.entry((key.kind, metric)).or_default().push(done);
        }
    }
    let join = |((kind, metric), stages): ((StageKind, &str), Vec<&Done>)| {
        let of = |metric: &str| {
            let numbers = stages.iter().map(|done| done.metrics.get(metric).copied());
            numbers.map(Option::unwrap_or_default).collect::<Vec<f64>>()
        };
        let numbers = of(metric);
        let mean = numbers.iter().sum::<f64>() / count(numbers.len());
        let value = match join(kind, metric) {
            Join::Mean => mean,
            Join::WeightedBy(weight) => {
                let weights = of(weight);
                let total: f64 = weights.iter().sum();
                let sum: f64 = numbers.iter().zip(&weights).map(|(n, weight)| n * weight).sum();
                if total > 0.0 { sum / total } else { mean }
            }
            Join::Sum => numbers.iter().sum(),
            Join::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Join::Last => numbers.last().copied().unwrap_or_default(),
        };
        (name(kind, metric), value)
    };
    found.into_iter().map(join).collect()
}

/// What the stages of an iteration took, by kind, of all workers together.
fn seconds(stages: &[(&StageKey, &Done)]) -> Metrics {
    let mut seconds = Metrics::new();
    for (key, done) in stages {
        *seconds.entry(format!("time/{}", key.kind)).or_default() += done.took_ms() / 1e3;
    }
    seconds
}

/// An evaluation's numbers; with intervals where its document is there.
fn evaluated(stages: &[(&StageKey, &Done)], document: Option<&Evaluation>) -> Metrics {
    let mut metrics = Metrics::new();
    let Some((_, done)) = stages.iter().find(|(key, _)| key.kind == StageKind::Evaluation) else {
        return metrics;
    };
    for (metric, &value) in &done.metrics {
        // `accuracy` repeats that of the first sampler, which is also there under its number of steps.
        let name = match metric.split_once('_') {
            Some((what @ ("accuracy" | "passes"), steps)) => format!("eval/{what}@{steps}"),
            None if metric == "accuracy" || metric == "passes" => continue,
            _ => format!("eval/{metric}"),
        };
        metrics.insert(name, value);
    }
    for grades in document.into_iter().flat_map(|evaluation| &evaluation.results) {
        if let Some((low, high)) = interval(grades) {
            metrics.insert(format!("eval/accuracy_low@{}", grades.steps), low);
            metrics.insert(format!("eval/accuracy_high@{}", grades.steps), high);
        }
    }
    metrics
}

/// Of 95 %; none where the accuracy gives parts of points, which is no share of right answers.
pub fn interval(grades: &EvaluationResult) -> Option<(f64, f64)> {
    let estimate = pass_at(&grades.solved_by, 1)?;
    let is_share = (estimate.share - grades.accuracy).abs() < SAME;
    is_share.then_some((estimate.interval.low, estimate.interval.high))
}

fn chunks(stages: &BTreeMap<StageKey, Done>) -> Vec<Chunk> {
    let mut steps = 0;
    let mut chunks = vec![];
    for (key, done) in stages.iter().filter(|(key, _)| key.kind == StageKind::Sft) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of optimizer steps"
        )]
        let own = done.metrics.get("steps").map_or(0, |&steps| steps as u64);
        steps += own;
        let mut metrics = joined(&[(key, done)]);
        metrics.retain(|name, _| name != "sft/steps");
        chunks.push(Chunk { steps, unix_ms: ended(done), metrics });
    }
    chunks
}

#[cfg(test)]
mod tests;
