//! Checkpointing is a matter of memory alone: every kind's gradient is the same to the bit.

use super::*;

#[test]
fn every_kind_s_gradient_is_the_same_to_the_bit() {
    for kind in EstimatorKind::ALL {
        for position_gradient in [false, true] {
            let is_ar = kind == EstimatorKind::ArGrpo;
            if position_gradient && kind != EstimatorKind::Agrpo {
                continue;
            }
            let has_all = matches!(kind, EstimatorKind::Agrpo | EstimatorKind::ArGrpo);
            let k = if has_all { Samples::All } else { Samples::Count(2) };
            let config = EstimatorConfig { k, position_gradient, kl: real(0.1), ..config(kind) };
            let sampler = sampler(4, if is_ar { 1 } else { 4 }, 4, PositionRule::LowConfidence);
            let (policy, reference) = (single(1), single(2));
            let rows: Vec<Row> =
                (0..6).map(|n| Row { prompt: PROMPT.to_vec(), seed: Seed::new(n) }).collect();
            let trajectories = sample(&policy, &rows, &sampler, 4).unwrap();
            let worth = |n: i32| Worth { advantage: f64::from(n) - 2.5, counted: true };
            let worths: Vec<Worth> = (0..6).map(worth).collect();
            let batch = Batch::new(&trajectories, &worths, 3, &sampler, policy.config()).unwrap();
            let estimator = estimator(&batch, &config, Seed::new(7));
            let policies =
                Policies { policy: &policy, behaviour: None, reference: Some(&reference) };
            let gradients = |checkpointing| {
                policy.zero_grad();
                policy.require_grad();
                let config = EstimatorConfig { micro_batch: 3, checkpointing, ..config.clone() };
                let measured = accumulate(&estimator, &policies, &config).unwrap();
                let copy = |(name, gradient): (String, Tensor)| (name, gradient.copy());
                (policy.gradients().into_iter().map(copy).collect::<Vec<_>>(), measured.loss)
            };
            let (plain, ours) = (gradients(false), gradients(true));
            assert!(plain == ours, "{kind}, position_gradient {position_gradient}");
            let moves =
                |(_, gradient): &(String, Tensor)| gradient.abs().max().double_value(&[]) > 0.0;
            assert!(plain.0.iter().any(moves), "{kind}");
        }
    }
}
