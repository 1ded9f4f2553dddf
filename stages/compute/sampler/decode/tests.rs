//! Tests of decoding: how much each step writes, and that a row is the same in any batch.

use std::num::NonZeroUsize;

use agrpo_spec::{Confidence, Family, ModelShape, PositionRule, Purpose};
use tch::{Kind, Tensor};

use super::*;
use crate::model::{ModelConfig, PADDING, Placement, Queries};
use crate::sampler::choice::Distribution;
use crate::tensors::numbers;
use crate::testing::{real, sampler};
use crate::trajectories::NEVER;

const EOS: i64 = 4;
const MASK: i64 = 5;

mod families;

/// A policy of some confidence, for `positions` tokens.
fn policy(positions: i64) -> Policy {
    policy_of(Family::default(), positions)
}

fn policy_of(family: Family, positions: i64) -> Policy {
    crate::use_one_thread();
    let shape = ModelShape {
        n_experts: None,
        experts_per_token: None,
        family,
        n_kv_heads: None,
        head_size: None,
        attention_block: (family == Family::Sdar).then_some(4),
        d_model: 16,
        n_layers: 2,
        n_heads: 2,
        mlp_hidden_size: 20,
        rope_theta: real(10_000.0),
        rms_norm_eps: real(1e-5),
        init_std: real(0.4),
    };
    Policy::draw(ModelConfig::new(&shape, 6, EOS, MASK, positions), 0.4, Seed::new(1)).unwrap()
}

/// Three prompts, four completions each.
fn rows(padding: impl Fn(u64) -> usize) -> Vec<Row> {
    let row = |n: u64| {
        let own = |j| i64::try_from(Seed::new(n / 4).below(4, 0, j)).unwrap();
        let prompt = std::iter::repeat_n(PADDING, padding(n / 4)).chain((0..5).map(own));
        Row { prompt: prompt.collect(), seed: Seed::new(9).child(Purpose::Sample, n) }
    };
    (0..12).map(row).collect()
}

/// Every way to decode faster, greedily and by chance.
fn fast(tokens: u32, block: u32) -> Vec<Sampler> {
    let mut all = vec![];
    for cache in [Cache::None, Cache::Prefix, Cache::Dual] {
        for threshold in [None, Some(real(0.5))] {
            for temperature in [0.0, 0.8] {
                let steps = if threshold.is_some() { tokens } else { tokens / 2 };
                let exact = sampler(tokens, block, steps, PositionRule::LowConfidence);
                let temperature = real(temperature);
                let top_k = if cache == Cache::Dual { 4 } else { 0 };
                let by_sampling = Sampler { cache, threshold, temperature, top_k, ..exact };
                if temperature.get() > 0.0 {
                    all.push(Sampler { confidence: Confidence::Model, ..by_sampling.clone() });
                }
                all.push(by_sampling);
            }
        }
    }
    all
}

/// The part of trajectories that is a row's.
#[derive(Debug, PartialEq)]
struct One {
    tokens: Vec<i64>,
    steps: Vec<i64>,
    logps: Vec<f32>,
    entropies: Vec<f32>,
    kept: Vec<Vec<i64>>,
}

fn of_row(all: &Trajectories, row: usize) -> One {
    let c = all.completion_len;
    let cells = row * c..(row + 1) * c;
    let kept = cells.clone().map(|cell| all.kept_at(cell).unwrap_or(&[]).to_vec());
    One {
        tokens: all.completion(row).to_vec(),
        steps: all.steps(row).to_vec(),
        logps: all.token_logps[cells.clone()].to_vec(),
        entropies: all.token_entropies[cells.clone()].to_vec(),
        kept: kept.collect(),
    }
}

#[test]
fn the_first_steps_write_the_remainder() {
    let sampler = sampler(16, 8, 6, PositionRule::Random);
    let row = Row { prompt: vec![0, 1], seed: Seed::new(2) };
    let steps = sample(&policy(18), &[row], &sampler, 1, &Threads::one()).unwrap().unmask_steps;
    let written: Vec<_> = (0..6).map(|t| steps.iter().filter(|&&at| at == t).count()).collect();
    assert_eq!(written, [3, 3, 2, 3, 3, 2]);
}

/// To the bit, whatever lies beside it, however many states share a pass and threads compute; with prompts of one
/// length and of several.
#[test]
fn a_row_is_the_same_in_any_company() {
    let policy = policy(24);
    for padded in [false, true] {
        let rows = rows(|prompt| if padded { 1 + usize::try_from(prompt).unwrap() } else { 0 });
        let longest = rows.iter().map(|row| row.prompt.len()).max().unwrap();
        let fill = |row: &Row| {
            let spare = std::iter::repeat_n(PADDING, longest - row.prompt.len());
            Row { prompt: spare.chain(row.prompt.iter().copied()).collect(), seed: row.seed }
        };
        let rows: Vec<Row> = rows.iter().map(fill).collect();
        for sampler in fast(12, 4) {
            let alone: Vec<_> = rows
                .iter()
                .map(|row| {
                    of_row(
                        &sample(&policy, std::slice::from_ref(row), &sampler, 1, &Threads::one())
                            .unwrap(),
                        0,
                    )
                })
                .collect();
            for (micro_batch, threads) in [(1, 1), (2, 3), (5, 1), (64, 2)] {
                let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
                let all = sample(&policy, &rows, &sampler, micro_batch, &threads).unwrap();
                for (row, alone) in alone.iter().enumerate() {
                    assert_eq!(of_row(&all, row), *alone, "{row}, {micro_batch}, {sampler:?}");
                }
            }
        }
    }
}

/// Decoding of one block in random order as the rule reads, from the logits of every masked position.
fn from_every_position(policy: &Policy, row: &Row, sampler: &Sampler) -> One {
    let c = sampler.completion_tokens as usize;
    let mut one = One {
        tokens: vec![MASK; c],
        steps: vec![NEVER; c],
        logps: vec![0.0; c],
        entropies: vec![0.0; c],
        kept: vec![vec![]; c],
    };
    for step in 0..sampler.steps {
        let masked: Vec<usize> = (0..c).filter(|&j| one.tokens[j] == MASK).collect();
        let queries: Vec<i64> = masked.iter().map(|&j| length(row.prompt.len() + j)).collect();
        let ids_BL = Tensor::from_slice(&[row.prompt.as_slice(), &one.tokens].concat());
        let queries = Queries::At(Tensor::from_slice(&queries).unsqueeze(0));
        let hidden = policy.hidden(&ids_BL.unsqueeze(0), &queries).unwrap();
        let logits: Vec<f32> = numbers(&policy.head(&hidden)).unwrap();
        let uniform =
            |purpose, j: usize| row.seed.child(purpose, 0).uniform(step, u32::try_from(j).unwrap());
        let mut order: Vec<_> = masked.into_iter().zip(logits.chunks(6)).collect();
        let score = |j| uniform(Purpose::Position, j);
        order.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)));
        for (j, logits) in order.into_iter().take(c / sampler.steps as usize) {
            let at = Distribution::of_logits(logits, sampler, 5).unwrap();
            let place = at.choose(|| uniform(Purpose::Token, j));
            one.tokens[j] = length(at.token(place));
            one.steps[j] = i64::from(step);
            one.logps[j] = at.logp(place);
            #[expect(clippy::cast_possible_truncation, reason = "entropies are recorded as f32")]
            let entropy = at.entropy() as f32;
            one.entropies[j] = entropy;
            one.kept[j] = at.kept().unwrap_or(&[]).iter().copied().map(length).collect();
        }
    }
    one
}

/// In random order a step computes the positions that it writes alone. That changes no bit of them.
#[test]
fn random_order_writes_what_it_would_if_every_position_was_computed() {
    let (policy, rows) = (policy(24), rows(|_| 0));
    for (temperature, top_k, top_p) in [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.7, 4, 0.9)] {
        let plain = sampler(12, 12, 6, PositionRule::Random);
        let temperature = real(temperature);
        let sampler = Sampler { temperature, top_k, top_p: real(top_p), ..plain };
        let all = sample(&policy, &rows, &sampler, 5, &Threads::one()).unwrap();
        for (n, row) in rows.iter().enumerate() {
            let expected = from_every_position(&policy, row, &sampler);
            assert_eq!(of_row(&all, n), expected, "{n}, {sampler:?}");
        }
    }
}

/// Left padding is not seen: the tokens are those of the prompt alone.
#[test]
fn a_padded_prompt_is_continued_as_it_is_without_padding() {
    let policy = policy(24);
    let (padded, plain) = (rows(|_| 3), rows(|_| 0));
    for sampler in fast(12, 4) {
        let with = sample(&policy, &padded, &sampler, 64, &Threads::one()).unwrap();
        let without = sample(&policy, &plain, &sampler, 64, &Threads::one()).unwrap();
        assert_eq!(with.completion_ids, without.completion_ids, "{sampler:?}");
        assert_eq!(with.unmask_steps, without.unmask_steps, "{sampler:?}");
    }
}

/// In half precision padding is left out of every pass: not a bit depends on it, nor on the lengths beside it.
#[test]
fn in_half_precision_a_padded_prompt_is_the_prompt_alone() {
    let at = Placement { kind: Kind::BFloat16, ..Placement::CPU };
    let policy = Policy::from_folder_at(&policy(24).to_files().unwrap(), at).unwrap();
    let (padded, plain) = (rows(|n| usize::try_from(n).unwrap()), rows(|_| 0));
    let widest = padded.iter().map(|row| row.prompt.len()).max().unwrap();
    let padded: Vec<Row> = padded
        .into_iter()
        .map(|row| {
            let missing = widest - row.prompt.len();
            let prompt = std::iter::repeat_n(PADDING, missing).chain(row.prompt).collect();
            Row { prompt, ..row }
        })
        .collect();
    for sampler in fast(12, 4) {
        for micro_batch in [5, 64] {
            let with = sample(&policy, &padded, &sampler, micro_batch, &Threads::one()).unwrap();
            let without = sample(&policy, &plain, &sampler, 64, &Threads::one()).unwrap();
            for row in 0..padded.len() {
                let (with, without) = (of_row(&with, row), of_row(&without, row));
                assert_eq!(with, without, "{row}, {micro_batch}, {sampler:?}");
            }
        }
    }
}

/// Greedy decoding of one row with a threshold, as the rule reads: tokens, and the pass that wrote each.
fn parallel(policy: &Policy, row: &Row, sampler: &Sampler) -> (Vec<i64>, Vec<i64>) {
    let (c, threshold) = (sampler.completion_tokens as usize, sampler.threshold.unwrap().get());
    let (mut tokens, mut steps, mut pass) = (vec![MASK; c], vec![NEVER; c], 0);
    for block in (0..c).step_by(sampler.block_tokens as usize) {
        let block = block..block + sampler.block_tokens as usize;
        if block.start > 0
            && tokens[block.start - block.len()..block.start].iter().all(|&t| t == EOS)
        {
            tokens[block.start..].fill(EOS);
            break;
        }
        while tokens[block.clone()].contains(&MASK) {
            let ids = [row.prompt.as_slice(), &tokens].concat();
            let ids_BL = Tensor::from_slice(&ids).unsqueeze(0);
            let logits = policy.head(&policy.hidden(&ids_BL, &Queries::All).unwrap());
            let p_LV = logits.softmax(-1, Kind::Double).get(0);
            let best: Vec<(f64, usize, i64)> = block
                .clone()
                .filter(|&position| tokens[position] == MASK)
                .map(|position| {
                    let p_V = p_LV.get(length(row.prompt.len() + position)).narrow(0, 0, MASK);
                    let token = p_V.argmax(0, false).int64_value(&[]);
                    (p_V.double_value(&[token]), position, token)
                })
                .collect();
            let highest = best.iter().map(|(p, ..)| *p).fold(0.0, f64::max);
            for (p, position, token) in best {
                if p >= threshold || p == highest {
                    (tokens[position], steps[position]) = (token, pass);
                }
            }
            pass += 1;
        }
    }
    (tokens, steps)
}

#[test]
fn a_threshold_writes_what_is_sure_and_at_least_one_token() {
    let policy = policy(24);
    let rows = rows(|_| 0);
    for cut in [0.35, 0.5, 0.7, 1.0] {
        let exact = sampler(12, 4, 12, PositionRule::LowConfidence);
        let sampler = Sampler { threshold: Some(real(cut)), temperature: real(0.0), ..exact };
        let all = sample(&policy, &rows, &sampler, 64, &Threads::one()).unwrap();
        for (n, row) in rows.iter().enumerate() {
            let (tokens, steps) = parallel(&policy, row, &sampler);
            assert_eq!((all.completion(n), all.steps(n)), (&tokens[..], &steps[..]), "{cut}");
        }
        let passes: Vec<_> = [0, 4, 8].map(|row| all.sampled_steps(row)).to_vec();
        if cut == 1.0 {
            assert!(passes.iter().all(|&n| n == 12 || n % 4 == 0), "one token a pass: {passes:?}");
        } else if cut == 0.5 {
            assert!(passes.iter().any(|&n| n != passes[0]), "{passes:?}: the same for all rows");
        }
    }
}

/// A run file's checks name the file's keys; a spec of another origin is refused as well.
#[test]
fn incompatible_settings_are_refused_before_anything_is_computed() {
    let exact = sampler(4, 4, 2, PositionRule::LowConfidence);
    let few = Sampler { threshold: Some(real(0.9)), ..exact.clone() };
    let refused =
        sample(&policy(9), &rows(|_| 0), &few, 1, &Threads::one()).unwrap_err().to_string();
    assert!(refused.contains("sampler.steps = 2: expected the 4 tokens"), "{refused}");
    let guided = Sampler { guidance: real(1.0), cache: Cache::Dual, ..exact };
    let refused =
        sample(&policy(9), &rows(|_| 0), &guided, 1, &Threads::one()).unwrap_err().to_string();
    assert!(refused.contains("sampler.guidance = 1: expected 0"), "{refused}");
}
