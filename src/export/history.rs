//! A run's numbers, iteration by iteration: one row for each policy that the run has made.
//!
//! Row 0 is the base. A row's time is when the stage that made its policy ended, by its worker's clock; an
//! iteration whose last update is not done has no row yet. Nothing is thinned out.

use std::collections::BTreeMap;

use agrpo_spec::{
    ArtifactDigest, Base, Evaluation, EvaluationShards, Plan, Run, StageKey, StageKind, metrics,
};
use agrpo_view::history::{Done, RunHistory};
use agrpo_view::statistics::{Interval, interval};

use crate::columns::name;

/// Numbers by column.
pub type Metrics = metrics::Metrics;

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
    pub metrics: Metrics,
}

/// A chunk of the base's fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Optimizer steps done at its end.
    pub steps: u64,
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// By column.
    pub metrics: Metrics,
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

impl History {
    /// The numbers of a run so far.
    pub fn of(history: &RunHistory) -> Self {
        Self::read(history.run(), &history.stages, &history.evaluations)
    }

    fn read(
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
            let iteration = if key.kind == StageKind::Sft { 0 } else { key.iteration };
            let is_last = *key == Plan::last_update(run, iteration);
            if let Some(&policy) = done.outputs.get("policy")
                && (is_last || Some(*key) == Plan::last_chunk(run))
            {
                policies.insert(iteration, (policy, ended(done)));
            }
        }
        // Sft's numbers have an axis of their own.
        let mut by_iteration: BTreeMap<u32, Vec<(&StageKey, &Done)>> = BTreeMap::new();
        for (key, done) in stages.iter().filter(|(key, _)| key.kind != StageKind::Sft) {
            by_iteration.entry(key.iteration).or_default().push((key, done));
        }
        let row = |(iteration, (policy, unix_ms))| {
            let of_row = by_iteration.get(&iteration).map(Vec::as_slice).unwrap_or_default();
            let mut metrics = joined(of_row);
            for (key, done) in of_row {
                *metrics.entry(format!("time/{}", key.kind)).or_default() += done.took_ms() / 1e3;
            }
            metrics.extend(evaluated(run, of_row, evaluations.get(&iteration)));
            Row { iteration, unix_ms, policy, metrics }
        };
        let rows = if stages.is_empty() { vec![] } else { policies.into_iter().map(row).collect() };
        Self { began_unix_ms, rows, sft: chunks(stages) }
    }
}

/// When a stage's record was written.
#[expect(clippy::cast_possible_truncation, reason = "an age of the universe fits")]
fn ended(done: &Done) -> u64 {
    done.started_unix_ms + done.took_ms().round() as u64
}

/// Every metric of training stages, joined over shards and inner updates.
fn joined(stages: &[(&StageKey, &Done)]) -> Metrics {
    let mut found: BTreeMap<StageKind, Vec<&Metrics>> = BTreeMap::new();
    for &(key, done) in stages.iter().filter(|(key, _)| key.kind != StageKind::Evaluation) {
        found.entry(key.kind).or_default().push(&done.metrics);
    }
    let of_kind = |(kind, stages): (StageKind, Vec<&Metrics>)| {
        metrics::joined(kind, &stages)
            .into_iter()
            .map(move |(metric, value)| (name(kind, &metric), value))
    };
    found.into_iter().flat_map(of_kind).collect()
}

/// A whole evaluation's numbers; with intervals where its document is there.
fn evaluated(run: &Run, stages: &[(&StageKey, &Done)], document: Option<&Evaluation>) -> Metrics {
    let (mut metrics, mut shards) = (Metrics::new(), EvaluationShards::of(run));
    let evaluated = stages.iter().filter(|(key, _)| key.kind == StageKind::Evaluation);
    let Some(whole) =
        evaluated.filter_map(|(key, done)| shards.add(**key, done.metrics.clone())).last()
    else {
        return metrics;
    };
    for (metric, value) in whole {
        // `accuracy` repeats that of the first sampler, which is also there under its number of steps.
        let name = match metric.split_once('_') {
            Some((what @ (metrics::ACCURACY | metrics::PASSES), steps)) => {
                format!("eval/{what}@{steps}")
            }
            None if metric == metrics::ACCURACY || metric == metrics::PASSES => continue,
            _ => format!("eval/{metric}"),
        };
        metrics.insert(name, value);
    }
    let results = document.map(|evaluation| &*evaluation.results).unwrap_or_default();
    for grades in results {
        let Some(Interval { low, high }) = interval(grades) else { continue };
        // As metrics are named: by steps where the length is the first one's, and by both where lengths differ.
        let is_first = grades.completion_tokens == results[0].completion_tokens;
        let steps = is_first.then(|| grades.steps.to_string());
        for label in steps.into_iter().chain([grades.label()]) {
            metrics.insert(format!("eval/accuracy_low@{label}"), low);
            metrics.insert(format!("eval/accuracy_high@{label}"), high);
        }
    }
    metrics
}

fn chunks(stages: &BTreeMap<StageKey, Done>) -> Vec<Chunk> {
    let mut steps = 0;
    let mut chunks = vec![];
    for (key, done) in stages.iter().filter(|(key, _)| key.kind == StageKind::Sft) {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number of steps")]
        let added = done.metrics.get(metrics::STEPS).map_or(0, |&steps| steps as u64);
        steps += added;
        let mut metrics = joined(&[(key, done)]);
        metrics.retain(|name, _| name != "sft/steps");
        chunks.push(Chunk { steps, unix_ms: ended(done), metrics });
    }
    chunks
}

#[cfg(test)]
mod tests;
