//! Which estimator, and how many samples: variance, bias and seconds on one batch of trajectories.
//!
//! Every setting of a grid estimates the gradient of the same batch again and again, with timesteps and
//! masks drawn anew; `spread.rs` says what the estimates tell, as whole vectors:
//!
//! * **target** t: agrpo over every step (k = "all"), with the run's horizon and its choice about
//!   `position_gradient`. Clipping does nothing to it, as learner and sampler are one policy; but where
//!   `rollout.cache` sampled, ratios are not 1, and it acts on target and estimates alike.
//! * **step variance**: the trace of the covariance over redraws; what the batch is, is held fixed.
//! * **bias**: |mean - t|, its noise subtracted, its z without one, and the cosine, as an estimator that only differs in
//!   scale (a mean over tokens instead of steps) leads the same way.
//! * **rollout variance**: with g_i the exact gradient of group i of P counted ones, so that t is their
//!   mean, `sum over i of |g_i - t|^2 / (P (P - 1))`: what other prompts and completions would have
//!   changed. Advantages divided by a deviation over the shard tie groups together a little; this is
//!   neglected.
//! * **seconds** of one estimate, the median, by the caller's clock; and of sampling the batch.
//!
//! Which k is best follows in `choice.rs`. Estimates of equal number have equal seeds, so settings
//! are compared on the same draws. Nothing here is a stage: seconds differ every time, the rest is a
//! function of the arguments. No divergence (`estimator.kl`), no optimizer, no policy is changed.

mod choice;
mod fresh;
mod grid;
mod spread;

use agrpo_spec::{EstimatorConfig, Purpose, Sampler, Samples, Seed, StageError};
use serde::Serialize;

pub use choice::ClosedForm;
pub use fresh::Fresh;
pub use grid::{Grid, Setting, refusal};

use self::spread::{Estimates, Moments, dot};
use crate::error::invalid;
use crate::estimator::{Batch, Policies, Worth, accumulate, estimator};
use crate::model::Policy;
use crate::tensor_file::doubles;
use crate::trajectories::Trajectories;

/// Estimates of a setting that draws nothing: for the clock alone.
const TIMINGS: u32 = 3;

/// A bias whose z is at least this is seen: of 30 settings without bias one is held for biased in one
/// table of a thousand.
const SEEN: f64 = 4.0;

/// On what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy that sampled, and is differentiated.
    pub policy: &'a Policy,
    /// What it sampled.
    pub trajectories: &'a Trajectories,
    /// What that is worth, one a completion.
    pub worths: &'a [Worth],
    /// Completions of a prompt.
    pub group: usize,
    /// How trajectories were sampled.
    pub sampler: &'a Sampler,
    /// The run's estimator; settings replace what they vary.
    pub estimator: &'a EstimatorConfig,
    /// Seconds that sampling took.
    pub rollout_seconds: f64,
    /// Root of everything that is drawn.
    pub seed: Seed,
}

/// What one setting gave.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The estimator.
    #[serde(flatten)]
    pub setting: Setting,
    /// How many estimates were made.
    pub repeats: u32,
    /// Forward and backward passes asked for, in states.
    pub samples: usize,
    /// Distinct states computed, on average.
    pub states: f64,
    /// Seconds of an estimate, the median.
    pub seconds: f64,
    /// Trace of the covariance.
    pub variance: f64,
    /// Its root in units of the target's length.
    pub relative_std: f64,
    /// Variance in units of plain sampling's at the same k; none where there is no such row.
    pub variance_ratio: Option<f64>,
    /// |mean - target|^2, unbiased; below 0 where noise is larger.
    pub squared_bias: f64,
    /// The squared bias's standard error where there is no bias.
    pub squared_bias_error: f64,
    /// How far the bias is above noise, a standard normal number where there is no bias; none where
    /// nothing varies.
    pub bias_z: Option<f64>,
    /// The bias's length in units of the target's.
    pub bias_share: f64,
    /// The mean's length.
    pub norm: f64,
    /// The target's multiple that the mean is along it.
    pub scale: f64,
    /// Between mean and target; none where noise hides the mean.
    pub cosine: Option<f64>,
    /// What is left of the bias after the best rescaling, in units of the target's length.
    pub rescaled_bias_share: Option<f64>,
    /// (rollout + step variance) x (rollout + gradient seconds) in units of the least; none for other
    /// estimators than the target's.
    pub cost: Option<f64>,
}

impl Row {
    /// Whether the bias is more than noise, or nothing is drawn and there is no noise.
    pub fn is_bias_seen(&self) -> bool {
        self.bias_z.is_none_or(|z| z >= SEEN)
    }
}

/// What another batch would have changed, and what it costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rollout {
    /// Groups that the mean counts.
    pub groups: u32,
    /// The variance of the target over batches.
    pub variance: f64,
    /// Its root in units of the target's length.
    pub relative_std: f64,
    /// Seconds of sampling.
    pub seconds: f64,
}

/// What leaving the choice of positions out of the gradient does, seen from the whole gradient.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Positions {
    /// The missing term's length in units of the whole gradient's.
    pub share: f64,
    /// Between both.
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

/// Measures every setting; `tell` hears of each row with the number of all. An invalid question is
/// a batch in which nothing can be learned.
pub fn measure(
    question: &Question<'_>,
    grid: &Grid,
    clock: &dyn Fn() -> f64,
    tell: &mut dyn FnMut(&Row, usize),
) -> Result<Tuning, StageError> {
    let run = question.estimator;
    question.policy.require_grad();
    let (target, rollout) = exact(question, clock)?;
    let norm = dot(&target, &target).sqrt();
    let (settings, left_out) = grid.settings(question.sampler, run);
    let batch = question.batch(question.worths)?;
    let mut rows: Vec<Row> = vec![];
    for &setting in &settings {
        let repeats = if setting.k == Samples::All { TIMINGS } else { grid.repeats.max(4) };
        let mut row = measure_one(question, &batch, setting, repeats, &target, clock)?;
        let is_plain = |other: &&Row| Some(other.setting) == setting.plain();
        // Plain sampling comes first of its k.
        let plain = rows.iter().chain([&row]).find(is_plain).map(|plain| plain.variance);
        let ratio = plain.map(|plain| row.variance / plain);
        row.variance_ratio = ratio.filter(|ratio| ratio.is_finite());
        tell(&row, settings.len());
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
        Batch::new(self.trajectories, worths, self.group, self.sampler, self.policy.config())
    }
}

/// One estimate.
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
    policy.zero_grad();
    let start = clock();
    let estimator = estimator(batch, config, seed);
    let measured = accumulate(&*estimator, &policies, config)?;
    let seconds = clock() - start;
    let mut gradient = vec![];
    for tensor in policy.gradients().values() {
        gradient.extend(doubles(tensor)?);
    }
    Ok(Estimate { gradient, samples: estimator.samples(), states: measured.states, seconds })
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
        let seed = question.seed.child(Purpose::Timestep, u64::from(repeat));
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
    let worths = question.worths;
    // Before anything is computed: what cannot be a batch is refused.
    drop(question.batch(worths)?);
    let rows = worths.len();
    let moving = worths.iter().filter(|worth| worth.advantage != 0.0).count();
    if moving == 0 {
        return Err(invalid(format!(
            "none of the {rows} completions has an advantage: all of a prompt's earned the same, so there is no gradient to estimate"
        )));
    }
    let first_rows = (0..rows).step_by(question.group);
    let counted: Vec<usize> = first_rows.filter(|&row| worths[row].counted).collect();
    let groups = u32::try_from(counted.len()).expect("a batch is small");
    if groups < 2 {
        return Err(invalid(format!(
            "{groups} of the {} prompts counts, expected at least 2: what varies between prompts cannot be told from one",
            rows / question.group
        )));
    }
    let setting = Setting::exact(question.estimator.position_gradient);
    let config = setting.config(question.estimator);
    let parameters: usize = question.policy.parameters().values().map(tch::Tensor::numel).sum();
    let mut moments = Moments::new(parameters);
    for first in counted {
        let group = first..first + question.group;
        let others_still = |(row, worth): (usize, &Worth)| {
            let advantage = if group.contains(&row) { worth.advantage } else { 0.0 };
            Worth { advantage, ..*worth }
        };
        let alone: Vec<Worth> = worths.iter().enumerate().map(others_still).collect();
        let batch = question.batch(&alone)?;
        let mut part = estimate(question, &batch, &config, question.seed, clock)?.gradient;
        part.iter_mut().for_each(|x| *x *= f64::from(groups));
        moments.add(&part);
    }
    let variance = moments.variance() / f64::from(groups);
    let target = moments.into_mean();
    let norm = dot(&target, &target).sqrt();
    if !(norm.is_normal() && variance.is_finite()) {
        return Err(invalid(format!("the exact gradient has the length {norm}, expected above 0")));
    }
    let (relative_std, seconds) = (variance.sqrt() / norm, question.rollout_seconds);
    Ok((target, Rollout { groups, variance, relative_std, seconds }))
}

/// The middle one, or the mean of both; a machine that is busy now and then moves it least.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}
