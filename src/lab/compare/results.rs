//! Results of the runs of a comparison: accuracy, passes and seconds at every evaluation.
//!
//! A pass is one forward and backward pass of one state, as the estimator asked for it; equal states are computed
//! once, yet count. Reads no store.

use std::collections::BTreeMap;

use agrpo_spec::{EvaluationShards, RunId, StageKind, metrics};
use agrpo_view::history::RunHistory;
use serde::Serialize;

use super::file::Comparison;

/// One run, from the base to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The run.
    pub run: RunId,
    /// Its seed.
    pub seed: u64,
    /// Its number of iterations.
    pub iterations: u32,
    /// One for each evaluation.
    pub points: Vec<Point>,
}

/// A policy of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Its iteration; 0 is the base.
    pub iteration: u32,
    /// Forward and backward passes until then.
    pub passes: f64,
    /// Seconds of rollouts, rewards, gradients and updates until then, over all workers.
    pub seconds: f64,
    /// Greedy accuracy by number of unmask steps.
    pub accuracy: BTreeMap<u32, f64>,
}

/// All traces by variant, variants in the file's order.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Unmask steps of the evaluations; the first is what curves show.
    pub steps: Vec<u32>,
    /// Held-out problems of an evaluation.
    pub problems: u32,
    /// In the file's order.
    pub variants: Vec<Variant>,
}

/// One variant with every seed.
#[derive(Debug, Serialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// One for each seed.
    pub runs: Vec<Trace>,
}

impl Results {
    /// Of the traces of all members, in their order.
    pub fn new(comparison: &Comparison, traces: Vec<Trace>) -> Self {
        let evaluation = &comparison.members[0].run.config().evaluation;
        let name = |name: &String| Variant { name: name.clone(), runs: vec![] };
        let mut variants: Vec<Variant> = comparison.variants.iter().map(name).collect();
        for (member, trace) in comparison.members.iter().zip(traces) {
            let matching = variants.iter_mut().filter(|variant| variant.name == member.variant);
            matching.for_each(|variant| variant.runs.push(trace.clone()));
        }
        Self { steps: evaluation.steps.clone(), problems: evaluation.problems, variants }
    }
}

impl Trace {
    /// Of a finished run.
    pub fn of(history: &RunHistory) -> Self {
        let config = history.run().config();
        let (mut passes, mut seconds, mut points) = (0.0, 0.0, vec![]);
        let mut shards = EvaluationShards::of(history.run());
        for (key, done) in &history.stages {
            let metric = |name: &str| done.metrics.get(name).copied();
            match key.kind {
                // The training of the base is not compared.
                StageKind::Sft => {}
                StageKind::Evaluation => {
                    let Some(whole) = shards.add(*key, done.metrics.clone()) else { continue };
                    let at = |&steps: &u32| {
                        let name = metrics::at_steps(metrics::ACCURACY, steps);
                        Some((steps, *whole.get(&name)?))
                    };
                    let accuracy = config.evaluation.steps.iter().filter_map(at).collect();
                    points.push(Point { iteration: key.iteration, passes, seconds, accuracy });
                }
                kind => {
                    seconds += done.phases.compute_ms / 1e3;
                    // A stage of all updates has the mean over its gradients, a whole number each.
                    let gradients = match kind {
                        StageKind::Gradient => 1,
                        StageKind::Updates => {
                            config.rollout.shards * config.estimator.inner_updates
                        }
                        _ => 0,
                    };
                    let samples = metric(metrics::SAMPLES).unwrap_or(0.0);
                    passes += (samples * f64::from(gradients)).round();
                }
            }
        }
        let (run, iterations) = (history.run().id(), config.training.iterations);
        Self { run, seed: config.seed, iterations, points }
    }
}
