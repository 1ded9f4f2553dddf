//! Which k is worth its time: the least variance times seconds.
//!
//! A budget of B seconds buys B / c batches, whose mean has the variance V / (B / c). So of all settings
//! that estimate the same gradient, the best has the least product V c (P. W. Glynn and W. Whitt, "The
//! asymptotic efficiency of simulation estimators", Operations Research 40, 1992):
//! ```text
//! V c = (V_roll + V_step(k)) (c_roll + c_grad(k))
//! ```
//! With independent draws V_step(k) = sigma2 / k and c_grad(k) = k c; then the product is least at
//! ```text
//! k* = sqrt(sigma2 / V_roll) sqrt(c_roll / c)
//! ```
//! (set d/dk (V_roll + sigma2/k)(c_roll + k c) = 0). All four are of one batch, so its size cancels.
//! Biased estimators are not compared: their product does not include the bias.

use agrpo_spec::{EstimatorKind, Samples};
use serde::Serialize;

use super::grid::Setting;
use super::row::{Rollout, Row};

/// k* and what it is made of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClosedForm {
    /// k*, a real number.
    pub k: f64,
    /// sigma2: the variance of one sample a completion, drawn independently and uniformly.
    pub step_variance: f64,
    /// V_roll.
    pub rollout_variance: f64,
    /// c: seconds that a sample of every completion takes.
    pub seconds_per_sample: f64,
    /// c_roll.
    pub rollout_seconds: f64,
}

/// Writes the cost of every row that estimates the target's gradient, and returns the setting with the least; `None`
/// where no number of samples was measured.
pub(super) fn weigh(rows: &mut [Row], rollout: &Rollout) -> Option<Setting> {
    let product = |row: &Row| (rollout.variance + row.variance) * (rollout.seconds + row.seconds);
    let target = rows.first()?.setting;
    let is_compared = |row: &Row| {
        row.setting.kind == EstimatorKind::Agrpo
            && row.setting.position_gradient == target.position_gradient
    };
    let compared = || (0..rows.len()).filter(|&n| is_compared(&rows[n]));
    if compared().all(|n| rows[n].setting.k == Samples::All) {
        return None;
    }
    let best = compared().min_by(|&a, &b| product(&rows[a]).total_cmp(&product(&rows[b])))?;
    let (setting, least) = (rows[best].setting, product(&rows[best]));
    for row in rows.iter_mut().filter(|row| is_compared(row)) {
        row.cost = Some(product(row) / least);
    }
    Some(setting)
}

/// k* from the plain setting with the fewest samples.
pub(super) fn closed_form(rows: &[Row], rollout: &Rollout) -> Option<ClosedForm> {
    let is_plain = |row: &&Row| row.setting.kind == EstimatorKind::Agrpo && row.setting.is_plain();
    let plain = rows.iter().filter(is_plain).filter_map(|row| Some((row.setting.count()?, row)));
    let (k, row) = plain.min_by_key(|(k, _)| *k)?;
    let k = f64::from(k);
    let (step_variance, seconds_per_sample) = (row.variance * k, row.seconds / k);
    let squared = step_variance / rollout.variance * rollout.seconds / seconds_per_sample;
    squared.is_finite().then(|| ClosedForm {
        k: squared.sqrt(),
        step_variance,
        rollout_variance: rollout.variance,
        seconds_per_sample,
        rollout_seconds: rollout.seconds,
    })
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{StepWeights, Strata};

    use super::*;

    /// Plain sampling of variance 9 / k that takes 0.02 k seconds.
    fn plain(k: u32) -> Row {
        let n = f64::from(k);
        Row {
            setting: Setting {
                kind: EstimatorKind::Agrpo,
                k: Samples::Count(k),
                strata: Some(Strata::None),
                step_weights: Some(StepWeights::Uniform),
                position_gradient: false,
            },
            repeats: 4,
            samples: 0,
            states: 0.0,
            seconds: 0.02 * n,
            variance: 9.0 / n,
            relative_std: 0.0,
            variance_ratio: None,
            squared_bias: 0.0,
            squared_bias_error: 0.0,
            bias_z: None,
            bias_share: 0.0,
            norm: 1.0,
            scale: 1.0,
            cosine: None,
            rescaled_bias_share: None,
            cost: None,
        }
    }

    #[test]
    fn the_least_product_is_where_the_formula_says() {
        let rollout = Rollout { groups: 8, variance: 0.5, relative_std: 0.0, seconds: 0.9 };
        let mut rows: Vec<Row> = (1..=100).map(plain).collect();
        let formula = closed_form(&rows, &rollout).unwrap();
        assert!((formula.k - (18f64 * 45.0).sqrt()).abs() < 1e-9, "{formula:?}");
        let best = weigh(&mut rows, &rollout).unwrap();
        assert_eq!((best.k, rows[27].cost), (Samples::Count(28), Some(1.0)));
        assert!(rows.iter().all(|row| row.cost.unwrap() >= 1.0));
    }

    #[test]
    fn other_estimators_have_no_cost() {
        let rollout = Rollout { groups: 8, variance: 0.5, relative_std: 0.0, seconds: 0.9 };
        let mut rows = vec![plain(4), plain(1)];
        rows[1].setting.kind = EstimatorKind::DiffuGrpo;
        assert_eq!(weigh(&mut rows, &rollout), Some(plain(4).setting));
        assert_eq!(rows[1].cost, None);
    }
}
