//! Variance, bias and seconds of estimators on one batch of trajectories.
//!
//! Every setting estimates the gradient of the same batch again and again; `spread.rs` defines the statistics:
//! * **target** t: agrpo over every step (k = "all"), with the run's horizon and `position_gradient`. Learner and
//!   sampler are one policy, so nothing is clipped, unless `rollout.cache` sampled: then target and estimates alike.
//! * **step variance**: the trace of the covariance over redraws of timesteps and masks; the batch is held fixed.
//! * **bias**: |mean - t|, its noise subtracted, its z without one, and the cosine, as an estimator that only
//!   differs in scale leads the same way.
//! * **rollout variance**: with g_i the exact gradient of group i of P counted ones, so that t is their mean,
//!   `sum over i of |g_i - t|^2 / (P (P - 1))`. That advantages may be divided by a deviation over all is neglected.
//! * **seconds** of one estimate, the median, by the caller's clock; and of sampling the batch.
//!
//! Estimates of equal number have equal seeds, so settings are compared on the same draws. `choice.rs` chooses k.
//! Nothing here is a stage. No divergence (`estimator.kl`), no optimizer, no policy is changed.

use agrpo_compute::estimator::{Batch, Policies, Worth, accumulate, estimator};
use agrpo_compute::{Threads, model::Policy};
use agrpo_spec::{EstimatorConfig, Purpose, RolloutSpec, Samples, Seed, StageError};
use serde::Serialize;

use super::choice::{self, ClosedForm};
use super::fresh::Fresh;
use super::grid::{Grid, Setting};
use super::row::{Rollout, Row};
use super::spread::{Estimates, Moments, dot};

use crate::timed;

/// Estimates of a setting that draws nothing: for the clock alone.
const TIMINGS: u32 = 3;

/// The batch, and the estimator that is varied on it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy that sampled, and is differentiated.
    pub policy: &'a Policy,
    /// How the batch was sampled; its seed is the root of everything that is drawn.
    pub rollout: &'a RolloutSpec,
    /// The batch.
    pub fresh: &'a Fresh,
    /// The run's estimator; settings replace what they vary.
    pub estimator: &'a EstimatorConfig,
    /// The threads that compute an estimate.
    pub threads: &'a Threads,
}

/// The effect of leaving the gradient of the position choice out, relative to the whole gradient.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Positions {
    /// The missing term's length in units of the whole gradient's.
    pub share: f64,
    /// The cosine between the two gradients.
    pub cosine: Option<f64>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Tuning {
    /// The target's length.
    pub norm: f64,
    /// The batch.
    pub rollout: Rollout,
    /// Every setting, the exact sum first.
    pub rows: Vec<Row>,
    /// The setting with the least cost; none without one of agrpo's with a number of samples.
    pub recommended: Option<Setting>,
    /// The best k of plain sampling by formula.
    pub closed_form: Option<ClosedForm>,
    /// None where the choice of positions has no gradient or is not wholly recorded.
    pub positions: Option<Positions>,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
}

/// Measures every setting; `progress` gets each row and the number of all. Invalid is a batch without a gradient.
pub fn measure(
    question: &Question<'_>,
    grid: &Grid,
    clock: &dyn Fn() -> f64,
    progress: &mut dyn FnMut(&Row, usize),
) -> Result<Tuning, StageError> {
    let run = question.estimator;
    let (target, rollout) = exact(question, clock)?;
    let norm = dot(&target, &target).sqrt();
    let sampled_by = (&question.rollout.sampler, question.policy.config().family);
    let (settings, left_out) = grid.settings(sampled_by, run);
    let batch = question.batch(&question.fresh.worths())?;
    let mut rows: Vec<Row> = vec![];
    for &setting in &settings {
        let repeats = if setting.k == Samples::All { TIMINGS } else { grid.repeats.max(4) };
        let mut row = measure_one(question, &batch, setting, repeats, &target, clock)?;
        let is_plain = |other: &&Row| Some(other.setting) == setting.plain();
        // Plain sampling comes first of its k.
        let plain = rows.iter().chain([&row]).find(is_plain).map(|plain| plain.variance);
        let ratio = plain.map(|plain| row.variance / plain);
        row.variance_ratio = ratio.filter(|ratio| ratio.is_finite());
        progress(&row, settings.len());
        rows.push(row);
    }
    let recommended = choice::weigh(&mut rows, &rollout);
    let whole = rows.iter().filter(|row| row.setting.k == Samples::All);
    let positions = match whole.collect::<Vec<_>>().as_slice() {
        [_, other] => {
            let whole = if other.setting.position_gradient { other.norm } else { norm };
            Some(Positions { share: other.bias_share * norm / whole, cosine: other.cosine })
        }
        _ => None,
    };
    let closed_form = choice::closed_form(&rows, &rollout);
    Ok(Tuning { norm, rollout, rows, recommended, closed_form, positions, left_out })
}

impl Question<'_> {
    fn batch<'a>(&'a self, worths: &[Worth]) -> Result<Batch<'a>, StageError> {
        let (Fresh { trajectories, .. }, RolloutSpec { sampler, .. }) = (self.fresh, self.rollout);
        Batch::new(trajectories, worths, self.group(), sampler, self.policy.config())
    }

    fn group(&self) -> usize {
        self.rollout.group as usize
    }
}

struct Estimate {
    gradient: Vec<f64>,
    samples: usize,
    states: f64,
    seconds: f64,
}

fn estimate(
    question: &Question<'_>,
    batch: &Batch<'_>,
    config: &EstimatorConfig,
    seed: Seed,
    clock: &dyn Fn() -> f64,
) -> Result<Estimate, StageError> {
    let policy = question.policy;
    let policies = Policies { policy, behaviour: None, reference: None };
    let ((found, samples), seconds) = timed(clock, || {
        let estimator = estimator(batch, config, seed);
        Ok((accumulate(&estimator, &policies, config, question.threads)?, estimator.samples))
    })?;
    Ok(Estimate { gradient: found.flat()?, samples, states: found.measured.states, seconds })
}

fn measure_one(
    question: &Question<'_>,
    batch: &Batch<'_>,
    setting: Setting,
    repeats: u32,
    target: &[f64],
    clock: &dyn Fn() -> f64,
) -> Result<Row, StageError> {
    let config = setting.config(question.estimator);
    let mut estimates = Estimates::new(target);
    let (mut samples, mut states, mut seconds) = (0, 0.0, vec![]);
    for repeat in 0..repeats {
        let seed = question.rollout.seed.child(Purpose::Timestep, u64::from(repeat));
        let one = estimate(question, batch, &config, seed, clock)?;
        estimates.add(one.gradient);
        samples = one.samples;
        states += one.states / f64::from(repeats);
        seconds.push(one.seconds);
    }
    let spread = estimates.spread();
    let norm = dot(target, target).sqrt();
    Ok(Row {
        setting,
        repeats,
        samples,
        states,
        seconds: median(seconds),
        variance: spread.variance,
        relative_std: spread.variance.sqrt() / norm,
        variance_ratio: None,
        squared_bias: spread.bias,
        squared_bias_error: spread.bias_error,
        bias_z: spread.bias_z,
        bias_share: spread.bias.max(0.0).sqrt() / norm,
        norm: spread.square.max(0.0).sqrt(),
        scale: spread.scale,
        cosine: spread.cosine,
        rescaled_bias_share: spread.cosine.map(|cosine| (1.0 - cosine * cosine).sqrt()),
        cost: None,
    })
}

/// The target, group by group, and how much it would vary.
fn exact(
    question: &Question<'_>,
    clock: &dyn Fn() -> f64,
) -> Result<(Vec<f64>, Rollout), StageError> {
    let (worths, group) = (question.fresh.worths(), question.group());
    // Before anything is computed: what cannot be a batch is refused.
    drop(question.batch(&worths)?);
    let rows = worths.len();
    let moving = worths.iter().filter(|worth| worth.advantage != 0.0).count();
    if moving == 0 {
        return Err(StageError::Invalid(format!(
            "none of the {rows} completions has an advantage: all of a prompt's earned the same, so there is no gradient to estimate"
        ).into()));
    }
    let first_rows = (0..rows).step_by(group);
    let counted: Vec<usize> = first_rows.filter(|&row| worths[row].counted).collect();
    let groups = u32::try_from(counted.len()).expect("a batch is small");
    if groups < 2 {
        return Err(StageError::Invalid(format!(
            "{groups} of the {} prompts counts, expected at least 2: what varies between prompts cannot be estimated from one",
            rows / group
        ).into()));
    }
    let setting = Setting::exact(question.estimator.position_gradient);
    let config = setting.config(question.estimator);
    let parameters: usize = question.policy.parameters().values().map(tch::Tensor::numel).sum();
    let mut moments = Moments::new(parameters);
    for first in counted {
        let rows = first..first + group;
        let others_still = |(row, worth): (usize, &Worth)| {
            let advantage = if rows.contains(&row) { worth.advantage } else { 0.0 };
            Worth { advantage, ..*worth }
        };
        let alone: Vec<Worth> = worths.iter().enumerate().map(others_still).collect();
        let batch = question.batch(&alone)?;
        let mut part = estimate(question, &batch, &config, question.rollout.seed, clock)?.gradient;
        part.iter_mut().for_each(|x| *x *= f64::from(groups));
        moments.add(&part);
    }
    let variance = moments.variance() / f64::from(groups);
    let target = moments.mean;
    let norm = dot(&target, &target).sqrt();
    if !(norm.is_normal() && variance.is_finite()) {
        return Err(StageError::Invalid(
            format!("the exact gradient has the length {norm}, expected above 0").into(),
        ));
    }
    let (relative_std, seconds) = (variance.sqrt() / norm, question.fresh.seconds);
    Ok((target, Rollout { groups, variance, relative_std, seconds }))
}

/// The median: the middle value or the mean of the two middle ones. Load on the machine changes it least.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}
