//! Which estimators are measured: a kind, a number of samples, and how its timesteps are drawn.
//!
//! What a kind does not read is no part of its settings, so nothing is measured twice. What cannot be
//! measured is told in plain words, not left out in silence. Computes nothing.

use agrpo_spec::{
    EstimatorConfig, EstimatorKind, Misfit, Real, Sampler, Samples, StepWeights, Strata,
};
use serde::Serialize;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The kinds; agrpo's exact sum is always measured.
    pub kinds: Vec<EstimatorKind>,
    /// Their numbers of samples, k.
    pub samples: Vec<u32>,
    /// Estimates of each setting, at least 4.
    pub repeats: u32,
}

/// One estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its kind.
    pub kind: EstimatorKind,
    /// Samples of a completion.
    pub k: Samples,
    /// What timesteps are spread over; none where the kind draws no timesteps.
    pub strata: Option<Strata>,
    /// How likely steps are; none where the kind does not read it.
    pub step_weights: Option<StepWeights>,
    /// Whether the choice of positions is part of the gradient.
    pub position_gradient: bool,
}

impl Setting {
    /// The estimate that all others are compared with: every step once.
    pub(super) fn exact(position_gradient: bool) -> Self {
        let (kind, k) = (EstimatorKind::Agrpo, Samples::All);
        Self { kind, k, strata: None, step_weights: None, position_gradient }
    }

    /// The run's own estimator.
    pub fn of(config: &EstimatorConfig) -> Self {
        let EstimatorConfig { kind, k, position_gradient, .. } = *config;
        let draws = k != Samples::All;
        let strata = (draws && reads_strata(kind)).then_some(config.strata);
        let step_weights = (draws && reads_weights(kind)).then_some(config.step_weights);
        Self { kind, k, strata, step_weights, position_gradient }.simplified()
    }

    /// One sample has nothing to be spread over.
    fn simplified(self) -> Self {
        match (self.k, self.strata) {
            (Samples::Count(1), Some(Strata::Completion)) => {
                Self { strata: Some(Strata::None), ..self }
            }
            _ => self,
        }
    }

    /// The same samples, drawn independently and uniformly; none for kinds that draw no timesteps.
    pub(super) fn plain(self) -> Option<Self> {
        self.strata?;
        let step_weights = self.step_weights.map(|_| StepWeights::Uniform);
        Some(Self { strata: Some(Strata::None), step_weights, ..self })
    }

    /// A run's configuration with this estimator. Without the divergence: measured is the policy
    /// gradient alone.
    pub(super) fn config(self, run: &EstimatorConfig) -> EstimatorConfig {
        EstimatorConfig {
            kind: self.kind,
            k: self.k,
            strata: self.strata.unwrap_or(Strata::None),
            step_weights: self.step_weights.unwrap_or(StepWeights::Uniform),
            position_gradient: self.position_gradient,
            kl: Real::new(0.0).expect("zero is finite"),
            ..run.clone()
        }
    }
}

/// Why a kind cannot be measured on such trajectories, however many its samples.
pub fn refusal(kind: EstimatorKind, sampler: &Sampler, run: &EstimatorConfig) -> Option<String> {
    let misfit = misfit(variants(kind, 1, false)[0], sampler, run)?;
    Some(format!("{kind}: {misfit}"))
}

fn misfit(setting: Setting, sampler: &Sampler, run: &EstimatorConfig) -> Option<Misfit> {
    setting.config(run).fits(sampler).err()
}

impl Grid {
    /// The settings, the exact sum first, and what was left out.
    pub(super) fn settings(
        &self,
        sampler: &Sampler,
        run: &EstimatorConfig,
    ) -> (Vec<Setting>, Vec<String>) {
        let own = run.position_gradient;
        let (mut settings, mut left_out) = (vec![Setting::exact(own)], vec![]);
        let other = Setting::exact(!own);
        if misfit(other, sampler, run).is_none() {
            settings.push(other);
        }
        for &kind in &self.kinds {
            if let Some(why) = refusal(kind, sampler, run) {
                left_out.push(why);
                continue;
            }
            for &k in &self.samples {
                let all = variants(kind, k, own && kind == EstimatorKind::Agrpo);
                match misfit(all[0], sampler, run) {
                    Some(misfit) => left_out.push(format!("{kind}: {misfit}")),
                    None => settings.extend(all),
                }
            }
        }
        (settings, left_out)
    }
}

/// Every way in which a kind draws k samples.
fn variants(kind: EstimatorKind, k: u32, position_gradient: bool) -> Vec<Setting> {
    let strata: &[_] = match (reads_strata(kind), k) {
        (false, _) => &[None],
        (true, 1) => &[Some(Strata::None), Some(Strata::Shard)],
        (true, _) => &[Some(Strata::None), Some(Strata::Shard), Some(Strata::Completion)],
    };
    let weights: &[_] = match reads_weights(kind) {
        false => &[None],
        true => &[Some(StepWeights::Uniform), Some(StepWeights::Entropy)],
    };
    let k = Samples::Count(k);
    let with = |&step_weights| {
        let setting = move |&strata| Setting { kind, k, strata, step_weights, position_gradient };
        strata.iter().map(setting)
    };
    weights.iter().flat_map(with).collect()
}

fn reads_strata(kind: EstimatorKind) -> bool {
    matches!(kind, EstimatorKind::Agrpo | EstimatorKind::ArGrpo)
}

fn reads_weights(kind: EstimatorKind) -> bool {
    kind == EstimatorKind::Agrpo
}
