//! Results of the runs of a comparison: accuracy, passes and seconds at every evaluation.
//!
//! Read from manifests alone, which the caller takes from the store. A pass is one forward and backward pass of
//! one state, as the estimator asked for it; equal states are computed once, yet count.

use std::collections::BTreeMap;

use agrpo_spec::{Manifest, Run, RunId, StageKey, StageKind};
use serde::Serialize;

use super::file::{Comparison, Member};

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
    /// Unmask steps of the evaluations.
    #[serde(skip)]
    steps: Vec<u32>,
    /// Passes so far.
    #[serde(skip)]
    passes: f64,
    /// Seconds so far.
    #[serde(skip)]
    seconds: f64,
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

/// Mean and standard deviation over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Results {
    /// No traces yet.
    pub fn new(comparison: &Comparison) -> Self {
        let evaluation = &comparison.members[0].run.config().evaluation;
        let names = comparison.variants.iter();
        Self {
            steps: evaluation.steps.clone(),
            problems: evaluation.problems,
            variants: names.map(|name| Variant { name: name.clone(), runs: vec![] }).collect(),
        }
    }

    /// Adds the trace of a member.
    pub fn add(&mut self, member: &Member, trace: Trace) {
        let mut variants = self.variants.iter_mut();
        if let Some(variant) = variants.find(|variant| variant.name == member.variant) {
            variant.runs.push(trace);
        }
    }
}

impl Spread {
    /// Of at least one value; the deviation is the sample's, 0 for a single value.
    pub(super) fn of(values: &[f64]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "seeds are few")]
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        Self { mean, deviation }
    }
}

impl Trace {
    /// Of a run, before its first iteration.
    pub fn new(run: &Run) -> Self {
        let config = run.config();
        Self {
            run: run.id(),
            seed: config.seed,
            iterations: config.training.iterations,
            points: vec![],
            steps: config.evaluation.steps.clone(),
            passes: 0.0,
            seconds: 0.0,
        }
    }

    /// Adds a stage. Stages come in the order of the run: an iteration's evaluation after its updates.
    pub fn add(&mut self, key: StageKey, manifest: &Manifest) {
        let metric = |name: &str| manifest.metrics.get(name).copied();
        match key.kind {
            // Training of the base is no part of what is compared.
            StageKind::Sft => {}
            StageKind::Evaluation => {
                let at = |&steps: &u32| Some((steps, metric(&format!("accuracy_{steps}"))?));
                self.points.push(Point {
                    iteration: key.iteration,
                    passes: self.passes,
                    seconds: self.seconds,
                    accuracy: self.steps.iter().filter_map(at).collect(),
                });
            }
            kind => {
                self.seconds += manifest.phases.compute_ms / 1e3;
                if kind == StageKind::Gradient {
                    self.passes += metric("samples").unwrap_or(0.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_sample_s() {
        assert_eq!(Spread::of(&[1.0, 3.0]), Spread { mean: 2.0, deviation: 2f64.sqrt() });
        assert_eq!(Spread::of(&[1.0]), Spread { mean: 1.0, deviation: 0.0 });
    }
}
