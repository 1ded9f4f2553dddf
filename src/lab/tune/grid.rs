//! Which estimators are measured: a kind, a number of samples, and how its timesteps are drawn.
//!
//! A setting has only the values that its kind reads, so nothing is measured twice. Computes nothing.

use std::{collections::BTreeSet, fmt};

use agrpo_spec::{
    EstimatorConfig, EstimatorKind, Family, Real, RunConfig, Sampler, Samples, StepEvery,
    StepWeights, Strata,
};
use agrpo_view::text::name_of;
use serde::Serialize;

/// The largest of the powers of two that are measured by default.
const MOST_SAMPLES: u32 = 32;

/// The settings to measure.
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

    /// The number of samples; none where every step is one.
    pub(super) fn count(self) -> Option<u32> {
        match self.k {
            Samples::Count(k) => Some(k),
            Samples::All => None,
        }
    }

    /// One sample has nothing within its completion to be spread over.
    pub(super) fn simplified(self) -> Self {
        let is_one = self.k == Samples::Count(1) && self.strata == Some(Strata::Completion);
        if is_one { Self { strata: Some(Strata::None), ..self } } else { self }
    }

    /// The same samples, drawn independently and uniformly; none for kinds that draw no timesteps.
    pub(super) fn plain(self) -> Option<Self> {
        self.strata?;
        let step_weights = self.step_weights.map(|_| StepWeights::Uniform);
        Some(Self { strata: Some(Strata::None), step_weights, ..self })
    }

    pub(super) fn is_plain(self) -> bool {
        self.plain() == Some(self)
    }

    /// A run's configuration with this estimator, without the divergence. The gradient is that of all samples, whatever
    /// steps the run's optimizer takes.
    pub(super) fn config(self, run: &EstimatorConfig) -> EstimatorConfig {
        EstimatorConfig {
            kind: self.kind,
            k: self.k,
            strata: self.strata.unwrap_or(Strata::None),
            step_weights: self.step_weights.unwrap_or(StepWeights::Uniform),
            position_gradient: self.position_gradient,
            kl: Real::new(0.0).expect("zero is finite"),
            step_every: StepEvery::Batch,
            accumulation_steps: 1,
            token_mean: if self.kind == run.kind { run.token_mean } else { self.kind.token_mean() },
            ..run.clone()
        }
    }
}

/// A setting in a sentence: `agrpo, k 4, strata group, weights entropy`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, k, strata, step_weights, position_gradient } = *self;
        write!(f, "{kind}, k {k}")?;
        if k == Samples::All && position_gradient {
            f.write_str(", with positions")?;
        }
        if let Some(strata) = strata {
            write!(f, ", strata {}", name_of(&strata))?;
        }
        step_weights.map_or(Ok(()), |weights| write!(f, ", weights {}", name_of(&weights)))
    }
}

/// What trajectories are sampled by: a sampler, and a policy of a family.
type SampledBy<'a> = (&'a Sampler, Family);

/// Why a kind cannot be measured on such trajectories, however many its samples.
pub fn refusal(
    kind: EstimatorKind,
    sampled_by: SampledBy<'_>,
    run: &EstimatorConfig,
) -> Option<String> {
    incompatible(variants(kind, 1, false, run.strata)[0], sampled_by, run)
}

fn incompatible(
    setting: Setting,
    (sampler, family): SampledBy<'_>,
    run: &EstimatorConfig,
) -> Option<String> {
    let config = setting.config(run);
    let why = config.check_sampler(sampler).and_then(|()| config.check_family(family)).err()?;
    Some(format!("{}: {why}", setting.kind))
}

impl Grid {
    /// A grid for a run: by default every kind, and for k the powers of two up to its steps beside its own.
    pub fn new(config: &RunConfig, kinds: &[EstimatorKind], samples: &[u32], repeats: u32) -> Self {
        let mut all = EstimatorKind::ALL.to_vec();
        all.retain(|kind| kinds.is_empty() || kinds.contains(kind));
        let samples: BTreeSet<u32> = if samples.is_empty() {
            let most = config.rollout.steps.min(MOST_SAMPLES);
            let doubled = std::iter::successors(Some(1), |k| Some(k * 2));
            let configured = Setting::of(&config.estimator).count();
            doubled.take_while(|&k| k <= most).chain(configured).collect()
        } else {
            samples.iter().copied().collect()
        };
        Self { kinds: all, samples: samples.into_iter().collect(), repeats }
    }

    /// The settings, the exact sum first, and what was left out.
    pub(super) fn settings(
        &self,
        sampled_by: SampledBy<'_>,
        run: &EstimatorConfig,
    ) -> (Vec<Setting>, Vec<String>) {
        let configured = run.position_gradient;
        let (mut settings, mut left_out) = (vec![Setting::exact(configured)], vec![]);
        let other = Setting::exact(!configured);
        if incompatible(other, sampled_by, run).is_none() {
            settings.push(other);
        }
        for &kind in &self.kinds {
            if let Some(why) = refusal(kind, sampled_by, run) {
                left_out.push(why);
                continue;
            }
            for &k in &self.samples {
                let positions = configured && kind == EstimatorKind::Agrpo;
                let all = variants(kind, k, positions, run.strata);
                match incompatible(all[0], sampled_by, run) {
                    Some(why) => left_out.push(why),
                    None => settings.extend(all),
                }
            }
        }
        (settings, left_out)
    }
}

/// Every way in which a kind draws k samples. They are spread over groups as published, or over the shard if the run does
/// so: the two differ little.
fn variants(kind: EstimatorKind, k: u32, position_gradient: bool, run: Strata) -> Vec<Setting> {
    let wide = if run == Strata::Shard { Strata::Shard } else { Strata::Group };
    let strata: &[_] = match (reads_strata(kind), k) {
        (false, _) => &[None],
        (true, 1) => &[Some(Strata::None), Some(wide)],
        (true, _) => &[Some(Strata::None), Some(wide), Some(Strata::Completion)],
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
