//! On-policy, every ratio is 1 to the bit: the learner computes what the sampler computed, whatever
//! else is in the batch of either. Not within a tolerance: a last bit that differs is a defect.

use agrpo_spec::Purpose;

use super::*;
use crate::sampler::{Row, sample};
use crate::trajectories::{NEVER, Trajectories};

/// Sizes that fill no vector register, and sizes that do. All are multiples of 4: of others, MKL may round
/// the odd rows of narrow products by themselves in `cpu-native`.
fn policies() -> [Policy; 2] {
    crate::use_one_thread();
    let of = |d_model, n_heads, mlp_hidden_size, vocabulary: i64| {
        let shape = ModelShape {
            d_model,
            n_layers: 2,
            n_heads,
            mlp_hidden_size,
            rope_theta: real(10_000.0),
            rms_norm_eps: real(1e-5),
            init_std: real(0.2),
        };
        let config = ModelConfig::new(&shape, vocabulary, 0, vocabulary - 1, 64);
        Policy::draw(config, 0.2, Seed::new(3)).unwrap()
    };
    [of(36, 3, 44, 7), of(64, 2, 128, 24)]
}

/// Three prompts of eleven tokens, five completions each: a group begins in one state.
fn rows() -> Vec<Row> {
    let prompt = |n| (0..11).map(|j| Seed::new(n).below(6, 0, j).try_into().unwrap()).collect();
    let row = |n| Row { prompt: prompt(n / 5), seed: Seed::new(8).child(Purpose::Sample, n) };
    (0..15).map(row).collect()
}

/// The largest |ratio - 1| over all tokens, learned with a micro-batch.
fn deviation(
    policy: &Policy,
    trajectories: &Trajectories,
    sampler: &Sampler,
    micro_batch: usize,
) -> f64 {
    let worths = [Worth { advantage: 1.0, counted: true }; 15];
    let batch = Batch::new(trajectories, &worths, 5, sampler, policy.config()).unwrap();
    let estimator = estimator(&batch, &config(EstimatorKind::Agrpo), Seed::new(1));
    let policies = Policies { policy, behaviour: None, reference: None };
    policy.require_grad();
    let measured = accumulate(&*estimator, &policies, micro_batch).unwrap();
    let written = trajectories.unmask_steps.iter().filter(|&&step| step != NEVER).count();
    assert_eq!(measured.factors, count(written), "every token has its ratio");
    measured.ratio_deviation
}

#[test]
fn ratios_are_1_in_every_order_under_every_filter_and_for_every_micro_batch() {
    let filters = [(1.0, 0, 1.0), (0.6, 0, 1.0), (0.6, 4, 1.0), (1.0, 0, 0.8), (0.6, 5, 0.9)];
    let micro_batches = [(1, 64), (4, 7), (64, 1)];
    for (policy, filter) in policies().iter().flat_map(|p| filters.map(|filter| (p, filter))) {
        for position in [PositionRule::Random, PositionRule::LowConfidence, PositionRule::Entropy] {
            for (n, (block, steps)) in [(6, 6), (3, 2), (2, 6)].into_iter().enumerate() {
                let (temperature, top_k, top_p) = filter;
                let sampler = Sampler {
                    temperature: real(temperature),
                    top_k,
                    top_p: real(top_p),
                    ..sampler(6, block, steps, position)
                };
                let (sampled_with, learned_with) = micro_batches[n];
                let trajectories = sample(policy, &rows(), &sampler, sampled_with).unwrap();
                let found = deviation(policy, &trajectories, &sampler, learned_with);
                assert_eq!(found, 0.0, "{sampler:?}, {sampled_with} and {learned_with} states");
            }
        }
    }
}

/// An end-of-sequence so probable that most rows stop after their first block: batches shrink.
#[test]
fn ratios_are_1_where_rows_stop_early() {
    let policy = &policies()[1];
    set_weights(policy, "transformer.ff_out", |w| {
        let w = w.copy();
        drop(w.narrow(0, 1, 5).fill_(0.0));
        w * 0.3
    });
    let sampler = sampler(6, 1, 6, PositionRule::LowConfidence);
    for micro_batches in [(1, 64), (64, 1), (64, 64)] {
        let (sampled_with, learned_with) = micro_batches;
        let trajectories = sample(policy, &rows(), &sampler, sampled_with).unwrap();
        let found = deviation(policy, &trajectories, &sampler, learned_with);
        let stopped = (0..15).filter(|&row| trajectories.sampled_steps(row) < 6).count();
        assert!((1..15).contains(&stopped), "{stopped}");
        assert_eq!(found, 0.0, "micro-batches {micro_batches:?}");
    }
}

/// A draw of some steps asks for other states than a sum over all: their bits are the same.
#[test]
fn records_are_what_the_learner_computes_again() {
    for policy in &policies() {
        let sampler = sampler(6, 3, 6, PositionRule::LowConfidence);
        let trajectories = sample(policy, &rows(), &sampler, 4).unwrap();
        let worths = [Worth { advantage: 0.0, counted: true }; 15];
        let batch = Batch::new(&trajectories, &worths, 5, &sampler, policy.config()).unwrap();
        for (cell, found) in recompute(&batch, policy, 9).unwrap().into_iter().enumerate() {
            let Some((logp, entropy)) = found else { continue };
            assert_eq!(logp, f64::from(trajectories.token_logps[cell]));
            assert!((entropy - f64::from(trajectories.token_entropies[cell])).abs() < 1e-6);
        }
    }
}
