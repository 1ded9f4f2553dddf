//! Checkpointing is a matter of memory alone, and the number of threads one of time: every kind's gradient is the same
//! to the bit.

use std::num::NonZeroUsize;

use agrpo_spec::Checkpointing;

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
            let trajectories = sample(&policy, &rows, &sampler, 4, &Threads::one()).unwrap();
            let worth = |n: i32| Worth { advantage: f64::from(n) - 2.5, counted: true };
            let worths: Vec<Worth> = (0..6).map(worth).collect();
            let batch = Batch::new(&trajectories, &worths, 3, &sampler, policy.config()).unwrap();
            let estimator = estimator(&batch, &config, Seed::new(7));
            let policies =
                Policies { policy: &policy, behaviour: Some(&policy), reference: Some(&reference) };
            let estimate = |checkpointing, threads| {
                let checkpointing =
                    if checkpointing { Checkpointing::Always } else { Checkpointing::Never };
                let config = EstimatorConfig { micro_batch: 3, checkpointing, ..config.clone() };
                let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
                let estimate = accumulate(&estimator, &policies, &config, &threads).unwrap();
                (estimate.flat().unwrap(), format!("{:?}", estimate.measured))
            };
            let one = estimate(false, 1);
            assert!(one.0.iter().any(|x| *x != 0.0), "{kind}");
            for (checkpointing, threads) in [(true, 1), (false, 2), (true, 3), (false, 5)] {
                let other = estimate(checkpointing, threads);
                assert!(one == other, "{kind}, {position_gradient}, {checkpointing}, {threads}");
            }
        }
    }
}
