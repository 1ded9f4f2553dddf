//! What a run adds up to while it is computed: accuracy, rewards, speed, and where the time went. Reads no clock and
//! draws nothing; `progress.rs` shows the numbers.

use std::collections::BTreeMap;

use agrpo_spec::metrics::{ACCURACY, REWARD, TOKENS};
use agrpo_spec::{
    EvaluationShards, Manifest, Partial, Phases, Run, StageDigest, StageKey, StageKind, StageSpec,
};
use agrpo_view::statistics::mean;
use serde::Serialize;

/// The rollouts, rewards and gradients of one iteration, as they come in.
#[derive(Debug, Default)]
struct Shards {
    rewards: Vec<f64>,
    tokens: f64,
}

/// One iteration, once its update is done.
#[derive(Debug)]
pub(crate) struct Iteration {
    /// Counted from 1.
    pub(crate) number: u32,
    /// Mean reward over all shards; none if an earlier process computed them.
    pub(crate) reward: Option<f64>,
    /// Completion tokens written by this process.
    pub(crate) tokens: f64,
}

/// Time of the stages of one kind that this process computed, summed over workers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct KindTime {
    pub(crate) stages: u64,
    /// Seconds in the stage itself.
    pub(crate) compute_s: f64,
    /// Seconds reading and verifying inputs.
    pub(crate) fetch_s: f64,
    /// Seconds hashing and writing outputs.
    pub(crate) store_s: f64,
}

/// Time spent on reading and writing instead of computing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Overhead {
    /// Share of all stage time.
    pub(crate) share: f64,
    /// Median of a stage, in milliseconds.
    pub(crate) median_ms: f64,
}

#[derive(Debug)]
pub(crate) struct RunSummary {
    shards: BTreeMap<u32, Shards>,
    evaluations: EvaluationShards<BTreeMap<String, f64>>,
    /// Where the time went, by kind of stage.
    pub(crate) kinds: BTreeMap<StageKind, KindTime>,
    overheads_ms: Vec<f64>,
    /// Accuracy of the evaluated policies, by iteration; 0 is the base.
    pub(crate) accuracy: BTreeMap<u32, f64>,
    pub(crate) last_update: Option<StageDigest>,
}

impl RunSummary {
    /// Of a run of which nothing is known yet.
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            shards: BTreeMap::new(),
            evaluations: EvaluationShards::of(run),
            kinds: BTreeMap::new(),
            overheads_ms: vec![],
            accuracy: BTreeMap::new(),
            last_update: None,
        }
    }

    /// Adds the metrics of a finished evaluation stage.
    pub(crate) fn add_evaluation(&mut self, key: StageKey, manifest: &Manifest) {
        let whole = self.evaluations.add(key, manifest.metrics.clone());
        let share = whole.and_then(|whole| whole.get(ACCURACY).copied());
        self.accuracy.extend(share.map(|share| (key.iteration, share)));
    }

    /// How many shards of a policy's evaluation are there; none where all are, or nothing is.
    pub(crate) fn partial_evaluation(&self, iteration: u32) -> Option<Partial> {
        self.evaluations.partial().find(|partial| partial.iteration == iteration)
    }

    /// Adds a finished stage; returns its iteration if this stage ends it.
    pub(crate) fn add(
        &mut self,
        key: StageKey,
        manifest: &Manifest,
        reused: bool,
    ) -> Option<Iteration> {
        if !reused {
            self.add_time(key.kind, manifest.phases);
        }
        let metric = |name: &str| manifest.metrics.get(name).copied();
        match key.kind {
            StageKind::Rollout if !reused => {
                let shards = self.shards.entry(key.iteration).or_default();
                shards.tokens += metric(TOKENS).unwrap_or(0.0);
            }
            StageKind::Reward => {
                let shards = self.shards.entry(key.iteration).or_default();
                shards.rewards.extend(metric(REWARD));
            }
            StageKind::Evaluation => self.add_evaluation(key, manifest),
            StageKind::Update | StageKind::Updates => {
                self.last_update = Some(manifest.stage);
                if let StageSpec::Update(spec) = &manifest.spec
                    && spec.inner < spec.inner_updates
                {
                    return None;
                }
                let Shards { rewards, tokens } =
                    self.shards.remove(&key.iteration).unwrap_or_default();
                let reward = (!rewards.is_empty()).then(|| mean(&rewards));
                return Some(Iteration { number: key.iteration, reward, tokens });
            }
            StageKind::Rollout | StageKind::Sft | StageKind::Gradient => {}
        }
        None
    }

    fn add_time(&mut self, kind: StageKind, phases: Phases) {
        let Phases { fetch_ms, compute_ms, store_ms } = phases;
        let time = self.kinds.entry(kind).or_default();
        time.stages += 1;
        time.compute_s += compute_ms / 1000.0;
        time.fetch_s += fetch_ms / 1000.0;
        time.store_s += store_ms / 1000.0;
        self.overheads_ms.push(fetch_ms + store_ms);
    }

    /// Reading and writing compared with computing; none if nothing was computed.
    pub(crate) fn overhead(&self) -> Option<Overhead> {
        let mut sorted = self.overheads_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let median_ms = *sorted.get(sorted.len() / 2)?;
        let compute_ms: f64 = self.kinds.values().map(|time| time.compute_s * 1000.0).sum();
        let overhead_ms: f64 = sorted.iter().sum();
        let all_ms = compute_ms + overhead_ms;
        let share = if all_ms > 0.0 { overhead_ms / all_ms } else { 0.0 };
        Some(Overhead { share, median_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_what_is_not_computing() {
        let run = Run::parse(include_str!("../jobs/runs/smoke.toml")).unwrap();
        let mut summary = RunSummary::of(&run);
        assert!(summary.overhead().is_none());
        summary.add_time(
            StageKind::Rollout,
            Phases { fetch_ms: 1.0, compute_ms: 96.0, store_ms: 3.0 },
        );
        let overhead = summary.overhead().unwrap();
        assert!((overhead.share - 0.04).abs() < 1e-12);
        assert!((overhead.median_ms - 4.0).abs() < 1e-12);
    }
}
