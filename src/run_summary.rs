//! What a run adds up to while it is computed: accuracy, rewards, speed, and where the time went.
//!
//! Takes finished stages and answers with numbers. Reads no clock and draws nothing; `progress.rs` shows
//! the numbers, and `agrpo run` prints them at the end.

use std::collections::BTreeMap;

use agrpo_spec::{Manifest, Phases, StageKey, StageKind, StageSpec};
use serde::Serialize;

/// The rollouts, rewards and gradients of one iteration, as they come in.
#[derive(Debug, Default)]
struct Shards {
    rewards: Vec<f64>,
    tokens: f64,
}

/// One iteration, once its update is done.
#[derive(Debug, Clone, PartialEq)]
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
    /// Stages computed.
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

/// The numbers of one run so far.
#[derive(Debug, Default)]
pub(crate) struct RunSummary {
    shards: BTreeMap<u32, Shards>,
    kinds: BTreeMap<StageKind, KindTime>,
    overheads_ms: Vec<f64>,
    /// Accuracy of the base and of the newest evaluated policy.
    accuracy: BTreeMap<u32, f64>,
    last_update: Option<Manifest>,
}

impl RunSummary {
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
            StageKind::Rollout if reused => {}
            StageKind::Rollout => {
                self.shards.entry(key.iteration).or_default().tokens +=
                    metric("tokens").unwrap_or(0.0);
            }
            StageKind::Reward => {
                let shards = self.shards.entry(key.iteration).or_default();
                shards.rewards.extend(metric("reward"));
            }
            StageKind::Evaluation => {
                self.accuracy.extend(metric("accuracy").map(|share| (key.iteration, share)));
            }
            StageKind::Update => {
                self.last_update = Some(manifest.clone());
                if let StageSpec::Update(spec) = &manifest.spec
                    && spec.inner < spec.inner_updates
                {
                    return None;
                }
                let shards = self.shards.remove(&key.iteration).unwrap_or_default();
                return Some(Iteration {
                    number: key.iteration,
                    reward: mean(&shards.rewards),
                    tokens: shards.tokens,
                });
            }
            StageKind::Sft | StageKind::Gradient => {}
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

    /// Adds the accuracy of the policy after an iteration (0: the base), from an earlier process.
    pub(crate) fn add_accuracy(&mut self, iteration: u32, share: f64) {
        self.accuracy.insert(iteration, share);
    }

    /// Accuracy of the base policy, if it is known.
    pub(crate) fn base_accuracy(&self) -> Option<f64> {
        self.accuracy.get(&0).copied()
    }

    /// Accuracy of the newest evaluated policy, if one is known.
    pub(crate) fn latest_accuracy(&self) -> Option<f64> {
        self.accuracy.last_key_value().map(|(_, share)| *share)
    }

    /// The manifest of the newest update.
    pub(crate) fn last_update(&self) -> Option<&Manifest> {
        self.last_update.as_ref()
    }

    /// Where the time went, by kind of stage.
    pub(crate) fn kinds(&self) -> &BTreeMap<StageKind, KindTime> {
        &self.kinds
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

fn mean(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a number of shards")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_what_is_not_computing() {
        let mut summary = RunSummary::default();
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
