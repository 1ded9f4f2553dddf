//! The measurements of one setting, and of the batch that all settings share. Computed by `measure.rs`.

use serde::Serialize;

use super::grid::Setting;

/// A bias is reported from this z on: one false report in a thousand tables of 30 settings.
pub(super) const SEEN: f64 = 4.0;

/// The measurements of one setting.
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
    /// How far the bias is above noise: standard normal without a bias; none where nothing varies.
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
    /// (rollout + step variance) x (rollout + gradient seconds) in units of the least; of the target's estimator
    /// only.
    pub cost: Option<f64>,
}

/// How the target varies between batches, and what a batch costs.
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
