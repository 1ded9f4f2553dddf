//! The time of a run by the clock: stages that wait for one another on the threads or GPUs of a machine.
//!
//! ```text
//! iteration  = w (rollout + reward) + inner (w gradient + update),   w = ceil(S / places); fused updates are one stage
//! evaluation = its work on all threads; in E parts on N > E GPUs, what iterations lose meanwhile to waves on N - E
//! ```
//! A run on processors shares its threads between all stages in hand, so an evaluation takes its own work alone. Knows
//! nothing about other runs.

use super::{By, Places, StageCost};
use crate::{run::Run, stage::StageKind};

/// What computes a run.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// GPUs, each with a process of its own; none where processors compute.
    pub gpus: Option<u64>,
    /// Threads of a process; of a GPU's, those with which the host computes updates.
    pub threads: u64,
    /// Stages in hand at the same time in a process.
    pub workers: u64,
}

/// A run by the clock.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Chain {
    /// Seconds from its start to its end.
    pub seconds: f64,
    /// Of one iteration, without evaluations.
    pub iteration: f64,
    /// The share of all threads' or GPUs' seconds in which they compute.
    pub busy: f64,
}

impl Machine {
    /// Stages of one kind that are in hand at the same time.
    fn at_once(&self, run: &Run, kind: StageKind) -> u64 {
        let shards = u64::from(run.config().rollout.shards);
        let ready = match kind {
            StageKind::Sft | StageKind::Update | StageKind::Updates => 1,
            StageKind::Evaluation => u64::from(run.config().evaluation_shards()) + shards,
            _ => shards,
        };
        let places = match self.gpus {
            Some(gpus) => gpus,
            None => self.workers.min(self.threads),
        };
        ready.min(places).max(1)
    }

    /// What each stage of a kind is computed on.
    pub fn places(&self, run: &Run, kind: StageKind) -> Places {
        let threads = self.threads as f64;
        match self.gpus {
            Some(_) => Places { device: 1.0, host: threads },
            None => {
                let own = threads / self.at_once(run, kind) as f64;
                Places { device: own, host: own }
            }
        }
    }

    /// The run, if one stage of each kind takes `seconds` by the clock.
    pub fn chain(
        &self,
        run: &Run,
        costs: &[StageCost],
        seconds: impl Fn(&StageCost) -> f64,
    ) -> Chain {
        let config = run.config();
        let cost = |kind| costs.iter().find(|cost| cost.kind == kind);
        let one = |kind| cost(kind).map_or(0.0, &seconds);
        let shards = u64::from(config.rollout.shards);
        // A stage is stored while the next one is computed; the last one is waited for.
        let all = |kind| {
            let waves = shards.div_ceil(self.at_once(run, kind)) as f64;
            let after = cost(kind).map_or(0.0, StageCost::after);
            waves * one(kind) - (waves - 1.0) * after.min(one(kind))
        };
        let inner = f64::from(config.estimator.inner_updates);
        let iteration = all(StageKind::Rollout)
            + all(StageKind::Reward)
            + inner * (all(StageKind::Gradient) + one(StageKind::Update))
            + one(StageKind::Updates);
        let iterations = f64::from(config.training.iterations);
        let chunks = cost(StageKind::Sft).map_or(0, |cost| cost.stages) as f64;
        let (beside, last) = self.evaluations(run, one(StageKind::Evaluation));
        let parts = f64::from(config.evaluation_shards());
        let stages = cost(StageKind::Evaluation).map_or(0, |cost| cost.stages);
        let evaluations = stages as f64 / parts;
        let total = chunks * one(StageKind::Sft)
            + iterations * iteration
            + (evaluations - 1.0).max(0.0) * beside
            + last;
        let places = self.gpus.unwrap_or(self.threads) as f64;
        let busy: f64 = costs
            .iter()
            .map(|cost| {
                let estimated = cost.seconds(self.places(run, cost.kind));
                let share = seconds(cost) / estimated.max(f64::MIN_POSITIVE);
                let computes = |by| by == By::Device || (self.gpus.is_none() && by == By::Host);
                let own = cost.parts.iter().filter(|part| computes(part.by));
                cost.stages as f64 * share * own.map(|part| part.one).sum::<f64>()
            })
            .sum();
        Chain { seconds: total, iteration, busy: (busy / (total * places)).min(1.0) }
    }

    /// The seconds that an evaluation adds while the run goes on, and those of the last one, after it.
    fn evaluations(&self, run: &Run, one: f64) -> (f64, f64) {
        let parts = u64::from(run.config().evaluation_shards());
        let Some(gpus) = self.gpus else {
            let device = self.places(run, StageKind::Evaluation).device;
            let work = parts as f64 * one * device / self.threads as f64;
            return (work, work);
        };
        let alone = parts.div_ceil(gpus) as f64 * one;
        let waves = |gpus: u64| u64::from(run.config().rollout.shards).div_ceil(gpus) as f64;
        let beside = match gpus.saturating_sub(parts) {
            0 => alone,
            others => alone * (1.0 - waves(gpus) / waves(others)),
        };
        (beside, alone)
    }
}
