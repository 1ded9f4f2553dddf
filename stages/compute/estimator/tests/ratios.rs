//! On-policy, every ratio is 1 to the bit: the learner computes what the sampler computed, whatever
//! else is in the batch of either. Not within a tolerance: a last bit that differs is a defect.

use agrpo_spec::{AttendsTo, Cache, Family, LoraConfig, Purpose};

use super::*;
use crate::kernels::row::{Row as Logits, largest};
use crate::kernels::softmax::Softmax;
use crate::model::{PADDING, Placement, Window};
use crate::sampler::{Row, sample};
use crate::tensors::numbers;
use crate::trajectories::{NEVER, Trajectories};

/// Sizes that fill no vector register, and sizes that do.
fn policies() -> [Policy; 4] {
    crate::use_one_thread();
    let of = |d_model, n_heads, mlp_hidden_size, vocabulary: i64| {
        let shape = ModelShape {
            family: Family::default(),
            n_kv_heads: None,
            head_size: None,
            attention_block: None,
            n_experts: None,
            experts_per_token: None,
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
    [of(36, 3, 44, 7), of(64, 2, 128, 24), of(10, 5, 7, 11), of(26, 1, 3, 9)]
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
    micro_batch: u32,
) -> f64 {
    let worths = [Worth { advantage: 1.0, counted: true }; 15];
    let batch = Batch::new(trajectories, &worths, 5, sampler, policy.config()).unwrap();
    let config = EstimatorConfig { micro_batch, ..config(EstimatorKind::Agrpo) };
    let estimator = estimator(&batch, &config, Seed::new(1));
    let policies = Policies { policy, behaviour: None, reference: None };
    let measured = accumulate(&estimator, &policies, &config, &Threads::one()).unwrap().measured;
    let written = trajectories.unmask_steps.iter().filter(|&&step| step != NEVER).count();
    assert_eq!(measured.factors, count(written), "every token has its ratio");
    measured.ratio_deviation
}

#[test]
fn ratios_are_1_in_every_order_under_every_filter_and_for_every_micro_batch() {
    let filters = [(1.0, 0, 1.0), (0.6, 0, 1.0), (0.6, 4, 1.0), (1.0, 0, 0.8), (0.6, 5, 0.9)];
    let micro_batches = [(1, 64), (4, 7), (64, 1)];
    for (policy, filter) in policies().iter().flat_map(|p| filters.map(|filter| (p, filter))) {
        for position in PositionRule::ALL {
            for (n, (block, steps)) in [(6, 6), (3, 2), (2, 6)].into_iter().enumerate() {
                let (temperature, top_k, top_p) = filter;
                let sampler = Sampler {
                    temperature: real(temperature),
                    top_k,
                    top_p: real(top_p),
                    ..sampler(6, block, steps, position)
                };
                let (sampled_with, learned_with) = micro_batches[n];
                let trajectories =
                    sample(policy, &rows(), &sampler, sampled_with, &Threads::one()).unwrap();
                let found = deviation(policy, &trajectories, &sampler, learned_with);
                assert_eq!(found, 0.0, "{sampler:?}, {sampled_with} and {learned_with} states");
            }
        }
    }
}

/// Blocks counted from prompts of three lengths, steps on a time grid, one pass for a whole row of an autoregressive model:
/// the learner computes the distributions that the sampler drew from, in f32 and, with adapters, in half precision.
#[test]
fn ratios_are_1_under_the_conventions_of_every_family() {
    crate::use_one_thread();
    for family in Family::ALL {
        let shape = crate::testing::shape_of(family, 0.2);
        let config = ModelConfig::new(&shape, 24, 0, 23, 64);
        let policy = Policy::draw(config, 0.2, Seed::new(3)).unwrap();
        let padded = |(n, row): (usize, Row)| {
            let padding = vec![PADDING; 1 + n / 5];
            Row { prompt: [&padding, &row.prompt[n / 5..]].concat(), ..row }
        };
        let rows: Vec<Row> = rows().into_iter().enumerate().map(padded).collect();
        let is_causal = family.traits().attends_to == AttendsTo::Before;
        let (block, steps) = if is_causal { (1, 8) } else { (4, 4) };
        let sure = sampler(8, block, 8, PositionRule::LowConfidence);
        let sure = Sampler { threshold: Some(real(0.1)), ..sure };
        let exact = PositionRule::ALL.map(|position| sampler(8, block, steps, position));
        for (policy, name) in [(&policy, "f32"), (&half(&policy, Some(3)), "bf16")] {
            for sampler in exact.iter().chain([&sure]) {
                let trajectories = sample(policy, &rows, sampler, 4, &Threads::one()).unwrap();
                let found = deviation(policy, &trajectories, sampler, 7);
                assert_eq!(found, 0.0, "{family:?} in {name}, {sampler:?}");
            }
        }
    }
}

/// A policy with adapters on every module, none of them zero.
fn adapted(policy: Policy, rank: u32) -> Policy {
    let lora = LoraConfig {
        rank,
        alpha: real(2.0 * f64::from(rank)),
        targets: policy.config().family.traits().tensors.targets().map(str::to_owned).into(),
        head: true,
        rslora: false,
        merge_for_sampling: false,
    };
    let policy = policy.with_new_adapter(&lora, Seed::new(5)).unwrap();
    set_weights(&policy, "lora_B", |b| {
        let places =
            Tensor::arange(i64::try_from(b.numel()).unwrap(), (Kind::Float, tch::Device::Cpu));
        (places * 0.7).sin().view_as(b) * 0.2
    });
    policy
}

/// Adapters of every small rank, as they are after some updates: B is not zero any more.
#[test]
fn ratios_are_1_with_adapters_of_every_rank() {
    for rank in 1..=24 {
        for policy in policies() {
            let policy = adapted(policy, rank);
            let sampler = sampler(6, 3, 6, PositionRule::LowConfidence);
            for (sampled_with, learned_with) in [(1, 64), (4, 7), (64, 1)] {
                let trajectories =
                    sample(&policy, &rows(), &sampler, sampled_with, &Threads::one()).unwrap();
                let found = deviation(&policy, &trajectories, &sampler, learned_with);
                let width = policy.config().d_model;
                assert_eq!(
                    found, 0.0,
                    "rank {rank} of {width}, {sampled_with} and {learned_with} states"
                );
            }
        }
    }
}

/// The same weights in bf16, with adapters after some updates if a rank is given.
fn half(policy: &Policy, rank: Option<u32>) -> Policy {
    let at = Placement { kind: Kind::BFloat16, ..Placement::CPU };
    let policy = Policy::from_folder_at(&policy.to_files().unwrap(), at).unwrap();
    rank.map_or_else(|| policy.handles(), |rank| adapted(policy.handles(), rank))
}

/// In half precision prompts of several lengths make passes of their own, in the sampler and in the learner: whatever
/// either packs, ratios are 1 to the bit, with adapters and without.
#[test]
fn ratios_are_1_in_half_precision_with_prompts_of_several_lengths() {
    let rows: Vec<Row> = (0..).zip(rows()).map(|(n, row)| shorter(row, n / 5)).collect();
    let filters = [(1.0, 0, 1.0), (0.6, 4, 0.9)];
    for (policy, rank) in policies().iter().zip([None, Some(1), Some(8), Some(5)]) {
        let policy = half(policy, rank);
        for ((temperature, top_k, top_p), cache) in filters
            .iter()
            .flat_map(|filter| [Cache::None, Cache::Dual].map(|cache| (filter, cache)))
        {
            let sampler = Sampler {
                temperature: real(*temperature),
                top_k: *top_k,
                top_p: real(*top_p),
                cache,
                ..sampler(6, 3, 6, PositionRule::LowConfidence)
            };
            let mut found = vec![];
            for (sampled_with, learned_with) in [(1, 64), (4, 7), (64, 1)] {
                let all = sample(&policy, &rows, &sampler, sampled_with, &Threads::one()).unwrap();
                let deviation = deviation(&policy, &all, &sampler, learned_with);
                assert!(cache == Cache::Dual || deviation == 0.0, "{rank:?}, {deviation}");
                found.push(all);
            }
            assert!(
                found[0] == found[1] && found[0] == found[2],
                "{rank:?}: the same in any batch"
            );
        }
    }
}

/// The row with `missing` tokens less at the front of its prompt, padded.
fn shorter(mut row: Row, missing: usize) -> Row {
    row.prompt[..missing].fill(PADDING);
    row
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
        let trajectories =
            sample(policy, &rows(), &sampler, sampled_with, &Threads::one()).unwrap();
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
        let trajectories = sample(policy, &rows(), &sampler, 4, &Threads::one()).unwrap();
        let worths = [Worth { advantage: 0.0, counted: true }; 15];
        let batch = Batch::new(&trajectories, &worths, 5, &sampler, policy.config()).unwrap();
        for (cell, found) in recompute(&batch, policy, 9).unwrap().into_iter().enumerate() {
            let Some((logp, entropy)) = found else { continue };
            assert_eq!(logp, f64::from(trajectories.token_logps[cell]));
            assert!((entropy - f64::from(trajectories.token_entropies[cell])).abs() < 1e-6);
        }
    }
}

/// log p of what a row's step wrote, as a pass with a dual cache computes it, from the model alone.
fn cached_logps(policy: &Policy, all: &Trajectories, row: usize, sampler: &Sampler) -> Vec<f32> {
    let (p, block) = (length(all.prompt_len), i64::from(sampler.block_tokens));
    let mask = policy.config().mask_token_id;
    let mut found = vec![0.0; all.completion_len];
    for step in 0..i64::from(all.sampled_steps(row)) {
        let wrote: Vec<usize> =
            (0..all.completion_len).filter(|&j| all.steps(row)[j] == step).collect();
        let start = length(wrote[0]) / block * block;
        let of_block = usize::try_from(start).unwrap()..usize::try_from(start + block).unwrap();
        let begun = all.steps(row)[of_block].iter().min().copied().unwrap();
        let state = |t| Tensor::from_slice(&all.state(row, t, mask)).unsqueeze(0);
        let queries: Vec<i64> = wrote.iter().map(|&j| p + length(j)).collect();
        let queries_BQ = Tensor::from_slice(&queries).unsqueeze(0);
        let (first, kept) = policy.hidden_and_keep(&state(begun), &queries_BQ).unwrap();
        // The row before a block predicts its first token where rows predict the next position.
        let before = length(policy.config().rows_before());
        let window = Window {
            ids_NW: &state(step).narrow(1, p + start - before, block + before),
            start: p + start - before,
            kept_N: &Tensor::from_slice(&[0i64]),
        };
        let hidden = match step == begun {
            true => first,
            false => policy.hidden_in_window(&window, &queries_BQ, &kept).unwrap(),
        };
        let logits_QV = policy.head(&hidden).get(0);
        let excluded = usize::try_from(mask).ok();
        for (query, &j) in wrote.iter().enumerate() {
            let logits: Vec<f32> = numbers(&logits_QV.get(length(query))).unwrap();
            let of_query = Logits { values: &logits, excluded };
            let softmax =
                Softmax::new(&of_query, largest(&of_query.maxima()), sampler.temperature.get());
            found[j] = softmax.logp(logits[usize::try_from(all.completion(row)[j]).unwrap()]);
        }
    }
    found
}

/// The records are the cached pass's log-probabilities, to the bit. The learner's pass is exact, so the ratio is
/// exp(exact - cached): the importance weight that corrects the approximation. Without a cache it is 1 to the bit,
/// threshold or not.
#[test]
fn ratios_correct_for_a_cache_and_are_1_without_one() {
    let shape = ModelShape { n_layers: 2, ..crate::testing::shape_of(Family::Dream, 0.2) };
    let dream = Policy::draw(ModelConfig::new(&shape, 7, 0, 6, 64), 0.2, Seed::new(3)).unwrap();
    for policy in [&policies()[0], &dream] {
        cached_ratios(policy);
    }
}

fn cached_ratios(policy: &Policy) {
    for threshold in [None, Some(real(0.4))] {
        let exact = Sampler { threshold, ..sampler(6, 3, 6, PositionRule::LowConfidence) };
        let plain = sample(policy, &rows(), &exact, 4, &Threads::one()).unwrap();
        assert_eq!(deviation(policy, &plain, &exact, 7), 0.0, "{threshold:?}");

        let cached = Sampler { cache: Cache::Dual, ..exact };
        let all = sample(policy, &rows(), &cached, 4, &Threads::one()).unwrap();
        for row in 0..15 {
            let found = cached_logps(policy, &all, row, &cached);
            assert_eq!(found, all.token_logps[row * 6..(row + 1) * 6], "{threshold:?}, row {row}");
        }
        let worths = [Worth { advantage: 1.0, counted: true }; 15];
        let batch = Batch::new(&all, &worths, 5, &cached, policy.config()).unwrap();
        let ratios: Vec<f64> = recompute(&batch, policy, 9)
            .unwrap()
            .into_iter()
            .zip(&all.token_logps)
            .filter_map(|(exact, &cached)| Some((exact?.0 - f64::from(cached)).exp()))
            .collect();
        let largest = ratios.iter().map(|ratio| (ratio - 1.0).abs()).fold(0.0, f64::max);
        assert!(largest > 1e-4, "{threshold:?}: nothing was stale");
        assert!(ratios.contains(&1.0), "{threshold:?}: a block's first pass is exact");
        let found = deviation(policy, &all, &cached, 7);
        assert!((found - largest).abs() < 1e-5, "{threshold:?}: {found}, expected {largest}");
    }
}

/// With a threshold rows make different numbers of steps. The mean is over a row's own: every token of it
/// has one ratio, and they weigh 1 / (rows * the row's horizon), or 1 / (rows * the completion's tokens).
#[test]
fn a_threshold_s_steps_are_a_mean_over_each_row_s_own() {
    let policy = &policies()[0];
    let sampler =
        Sampler { threshold: Some(real(0.4)), ..sampler(6, 3, 6, PositionRule::LowConfidence) };
    let all = sample(policy, &rows(), &sampler, 64, &Threads::one()).unwrap();
    let steps: std::collections::BTreeSet<_> = (0..15).map(|row| all.sampled_steps(row)).collect();
    assert!(steps.len() > 1, "all rows took {steps:?} steps");
    let worths = [Worth { advantage: 1.0, counted: true }; 15];
    let batch = Batch::new(&all, &worths, 5, &sampler, policy.config()).unwrap();
    for horizon in [Horizon::Effective, Horizon::Sampled] {
        let config = EstimatorConfig { horizon, ..config(EstimatorKind::Agrpo) };
        let estimator = estimator(&batch, &config, Seed::new(1));
        let factors = (0..estimator.units).flat_map(|n| (estimator.unit)(n).factors);
        let found: f64 = factors.map(|factor| factor.weight).sum();
        let of_row = |row: usize| {
            let last = match horizon {
                Horizon::Effective => batch.horizon(row),
                Horizon::Sampled => all.sampled_steps(row),
            };
            let tokens = (0..last).flat_map(|step| batch.written(row, step)).count();
            let divisor = if horizon == Horizon::Effective { last } else { 6 };
            if last == 0 { 0.0 } else { count(tokens) / f64::from(divisor) / 15.0 }
        };
        let expected: f64 = (0..15).map(of_row).sum();
        assert!((found - expected).abs() < 1e-12, "{horizon:?}: {found}, expected {expected}");
    }
}
