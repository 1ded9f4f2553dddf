//! What a run adds up to while it goes: accuracy, rewards, speed, and where the time went.
//!
//! Told of stages, it answers with numbers. It knows no clock and draws nothing; `progress.rs` shows
//! what it says, and `agrpo run` prints its summary.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// Mean reward over all shards; none if they were computed in an earlier session.
    pub(crate) reward: Option<f64>,
    /// Completion tokens written in this session.
    pub(crate) tokens: f64,
}

/// Time of the stages of one kind that this session computed, summed over workers.
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

/// Everything that was added up.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    shards: BTreeMap<u32, Shards>,
    kinds: BTreeMap<StageKind, KindTime>,
    overheads_ms: Vec<f64>,
    /// Accuracy of the base and of the newest evaluated policy.
    accuracy: BTreeMap<u32, f64>,
    last_update: Option<Manifest>,
}

impl Tally {
    /// Adds a finished stage; answers with its iteration where it was the last of one.
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

    /// Adds the accuracy of the policy after an iteration (0: the base), known from earlier.
    pub(crate) fn add_accuracy(&mut self, iteration: u32, share: f64) {
        self.accuracy.insert(iteration, share);
    }

    /// Accuracy of the base policy, if it was seen.
    pub(crate) fn base_accuracy(&self) -> Option<f64> {
        self.accuracy.get(&0).copied()
    }

    /// Accuracy of the newest evaluated policy, if one was seen.
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

    /// Reading and writing against computing; none if nothing was computed.
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

/// A duration in the two units that matter: `3h12m`, `4m05s`, `12s`.
pub(crate) fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// A share in per cent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// An accuracy with its counts: `43.0% (110 of 256)`; a share of parts of answers has none.
pub(crate) fn accuracy(share: f64, problems: u32) -> String {
    let count = share * f64::from(problems);
    if (count - count.round()).abs() > 1e-6 {
        return percent(share);
    }
    format!("{} ({:.0} of {problems})", percent(share), share * f64::from(problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_shares_are_short() {
        assert_eq!(short_duration(Duration::from_secs(12)), "12s");
        assert_eq!(short_duration(Duration::from_secs(245)), "4m05s");
        assert_eq!(short_duration(Duration::from_secs(11_520)), "3h12m");
        assert_eq!(accuracy(0.4296875, 256), "43.0% (110 of 256)");
    }

    #[test]
    fn overhead_is_what_is_not_computing() {
        let mut tally = Tally::default();
        assert!(tally.overhead().is_none());
        tally.add_time(
            StageKind::Rollout,
            Phases { fetch_ms: 1.0, compute_ms: 96.0, store_ms: 3.0 },
        );
        let overhead = tally.overhead().unwrap();
        assert!((overhead.share - 0.04).abs() < 1e-12);
        assert!((overhead.median_ms - 4.0).abs() < 1e-12);
    }
}
