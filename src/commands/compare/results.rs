//! What the runs of a comparison left: accuracy, passes and seconds at every evaluation.
//!
//! Read from manifests alone. A pass is one forward and backward pass of one state, as the estimator asked
//! for it; equal states are computed once, yet count.

use std::collections::BTreeMap;

use agrpo_jobs::Store;
use agrpo_spec::{Run, RunId, StageKind};
use serde::Serialize;

use super::file::{Comparison, Member};
use crate::commands::policies::{done_stages, recorded};
use crate::exit::Failure;

/// One run, from the base to its end.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trace {
    pub(super) run: RunId,
    pub(super) seed: u64,
    pub(super) iterations: u32,
    pub(super) points: Vec<Point>,
}

/// A policy of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) iteration: u32,
    /// Forward and backward passes until then.
    pub(super) passes: f64,
    /// Seconds of rollouts, rewards, gradients and updates until then, over all workers.
    pub(super) seconds: f64,
    /// Greedy accuracy by number of unmask steps.
    pub(super) accuracy: BTreeMap<u32, f64>,
}

/// All traces by variant, variants in the file's order.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// Unmask steps of the evaluations; the first is what curves show.
    pub(super) steps: Vec<u32>,
    pub(super) problems: u32,
    pub(super) variants: Vec<Variant>,
}

/// One variant with every seed.
#[derive(Debug, Serialize)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) runs: Vec<Trace>,
}

/// Mean and standard deviation over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Results {
    pub(super) fn new(comparison: &Comparison) -> Self {
        let evaluation = &comparison.members[0].run.config().evaluation;
        let names = comparison.variants.iter();
        Self {
            steps: evaluation.steps.clone(),
            problems: evaluation.problems,
            variants: names.map(|name| Variant { name: name.clone(), runs: vec![] }).collect(),
        }
    }

    pub(super) fn add(&mut self, member: &Member, trace: Trace) {
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

/// Reads a finished run's trace.
pub(super) async fn read(store: &Store, run: &Run) -> Result<Trace, Failure> {
    let (index, _) = done_stages(store, run).await?;
    let (mut passes, mut seconds) = (0.0, 0.0);
    let mut points = vec![];
    // In the order of the run: an iteration's evaluation comes after its updates.
    for (key, stage) in index {
        if key.kind == StageKind::Sft {
            continue;
        }
        let manifest = recorded(store, key, stage).await?;
        if key.kind != StageKind::Evaluation {
            seconds += manifest.phases.compute_ms / 1e3;
            let of_stage = manifest.metrics.get("samples");
            passes += of_stage.filter(|_| key.kind == StageKind::Gradient).unwrap_or(&0.0);
            continue;
        }
        let at = |&steps: &u32| Some((steps, *manifest.metrics.get(&format!("accuracy_{steps}"))?));
        let accuracy = run.config().evaluation.steps.iter().filter_map(at).collect();
        points.push(Point { iteration: key.iteration, passes, seconds, accuracy });
    }
    let (seed, iterations) = (run.config().seed, run.config().training.iterations);
    Ok(Trace { run: run.id(), seed, iterations, points })
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
