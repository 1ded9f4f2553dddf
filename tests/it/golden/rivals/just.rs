//! GRPO in autoregressive order against JustGRPO's `logprob_loss`. Its distributions are over the whole vocabulary, so
//! that every token is kept here.

use agrpo_compute::estimator::{Batch, estimator, recompute};
use agrpo_compute::trajectories::KeptSets;
use agrpo_spec::{EstimatorKind, Sampler, Samples, Seed};

use super::super::{floats, policy};
use super::{Case, LOGP, estimate, int};

#[test]
fn autoregressive_order_is_justgrpo_s() {
    let policy = policy();
    for case in Case::all("just") {
        let (number, rows, tokens) = (&case.settings["case"], case.all_rows(), case.count("C"));
        let temperature = case.real("temperature");
        let sampler = Sampler { temperature, ..case.sampler(1, tokens) };
        let model = case.model(&policy);
        let config = case.config(EstimatorKind::ArGrpo, Samples::All);
        let steps = rows.clone().flat_map(|_| 0..i64::from(tokens)).collect();
        let mut trajectories = case.trajectories(&rows, steps);
        let cells = rows.len() * tokens as usize;
        let vocabulary = policy.config().embedding_size;
        trajectories.kept = Some(KeptSets {
            offsets: (0..=int(cells)).map(|cell| cell * vocabulary).collect(),
            ids: (0..cells).flat_map(|_| 0..vocabulary).collect(),
        });
        let worths = case.worths(&rows);
        let batch = Batch::new(&trajectories, &worths, rows.len(), &sampler, &model).unwrap();
        let ours: Vec<f64> =
            recompute(&batch, &policy, 16).unwrap().into_iter().map(|it| it.unwrap().0).collect();
        let theirs = floats(&case.tensors["token_logps"]);
        assert_eq!(ours.len(), theirs.len());
        for (cell, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert!((ours - theirs).abs() < LOGP, "case {number}, cell {cell}: {ours} {theirs}");
        }
        // Its ratios are 1: the denominator is the numerator, without its gradient.
        #[expect(clippy::cast_possible_truncation, reason = "they were f32")]
        let own: Vec<f32> = ours.into_iter().map(|logp| logp as f32).collect();
        trajectories.token_logps = own;
        let batch = Batch::new(&trajectories, &worths, rows.len(), &sampler, &model).unwrap();
        let estimator = estimator(&batch, &config, Seed::new(0));
        let ours = estimate(&estimator, &config, &policy, None);
        assert_eq!(ours.measured.ratio_deviation, 0.0, "case {number}");
        case.compare(&ours, "loss", "", 1.0);
    }
}
