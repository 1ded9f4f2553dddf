//! Tests on tensors of the processor, by the operations that a GPU runs: the same kept sets, tokens and
//! log-probabilities as the scan of a row on the host, for logits with and without ties.

use agrpo_spec::{Confidence, PositionRule, Seed};

use super::*;
use crate::kernels::softmax::tests::logits;
use crate::testing::real;

/// Temperature, top-k, top-p.
const FILTERS: [(f64, u32, f64); 11] = [
    (1.0, 0, 1.0),
    (0.6, 0, 1.0),
    (0.6, 150, 0.99),
    (1.0, 5, 1.0),
    (1.0, 1, 1.0),
    (1.0, 0, 0.9),
    (0.6, 0, 0.95),
    (2.0, 0, 0.5),
    (1.0, 0, 1e-9),
    (2.0, 3000, 0.7),
    (0.0, 0, 1.0),
];
const DRAWS: u32 = 4;

fn sampler((temperature, top_k, top_p): (f64, u32, f64)) -> Sampler {
    let plain = crate::testing::sampler(8, 8, 8, PositionRule::Random);
    Sampler { temperature: real(temperature), top_k, top_p: real(top_p), ..plain }
}

/// The same, ranking by the model's own distribution.
fn by_model(filter: (f64, u32, f64)) -> Sampler {
    let position = PositionRule::LowConfidence;
    Sampler { position, confidence: Confidence::Model, ..sampler(filter) }
}

/// The same, in order of margin.
fn by_margin(filter: (f64, u32, f64)) -> Sampler {
    Sampler { position: PositionRule::Margin, ..sampler(filter) }
}

/// Rows of random logits, N x V: f32, or bf16, in which many are equal.
fn rows(count: usize, v: usize, kind: Kind) -> Tensor {
    let row = |n: usize| logits(v, 1.0 + (n % 5) as f64, n as u64);
    let all: Vec<f32> = (0..count).flat_map(row).collect();
    Tensor::from_slice(&all).view([length(count), length(v)]).to_kind(kind)
}

fn uniforms(count: usize) -> Vec<Vec<f64>> {
    let of = |n: usize| (0..DRAWS).map(|draw| Seed::new(n as u64).uniform(draw, 7)).collect();
    (0..count).map(of).collect()
}

/// Compares every row with the host's.
fn compare(logits_NV: &Tensor, mask: usize, sampler: &Sampler) {
    let (count, v) = (place(logits_NV.size()[0]), place(logits_NV.size()[1]));
    let uniforms = uniforms(count);
    let found = distributions(logits_NV.copy(), sampler, mask, &uniforms).unwrap();
    let values: Vec<f32> = numbers(logits_NV).unwrap();
    assert_eq!(found.len(), count);
    for ((row, found), uniforms) in values.chunks(v).zip(&found).zip(&uniforms) {
        let own = Distribution::of_logits(row, sampler, mask).unwrap();
        assert_eq!(found.kept(), own.kept(), "{sampler:?}");
        let apart = (found.entropy() - own.entropy()).abs();
        assert!(apart < 1e-6 * (1.0 + own.entropy()), "{sampler:?}: {apart}");
        if sampler.position == PositionRule::Margin {
            let apart = (found.margin() - own.margin()).abs();
            assert!(apart < 1e-6, "{sampler:?}: {apart}");
        }
        for &uniform in uniforms {
            let (here, there) = (own.choose(|| uniform), found.choose(|| uniform));
            assert_eq!(found.token(there), own.token(here), "{sampler:?}, {uniform}");
            let apart = (found.logp(there) - own.logp(here)).abs();
            let bound = if own.kept().is_some() { 0.0 } else { 1e-6 * (1.0 - own.logp(here)) };
            assert!(apart <= bound, "{sampler:?}: {apart}");
            let (ours, theirs) = (own.confidence(here), found.confidence(there));
            assert!((ours - theirs).abs() <= 1e-6 * (1.0 - ours), "{sampler:?}: {ours}, {theirs}");
        }
    }
}

#[test]
fn thousands_of_rows_give_what_the_scan_on_the_host_gives() {
    crate::use_one_thread();
    for kind in [Kind::Float, Kind::BFloat16] {
        for filter in FILTERS {
            for sampler in [sampler(filter), by_model(filter), by_margin(filter)] {
                compare(&rows(1000, 1000, kind), 999, &sampler);
                compare(&rows(70, 2500, kind), 1024, &sampler);
                compare(&rows(3, 2048, kind), 0, &sampler);
            }
        }
    }
}

#[test]
fn so_do_rows_of_llada_s_vocabulary() {
    crate::use_one_thread();
    for kind in [Kind::Float, Kind::BFloat16] {
        for filter in FILTERS {
            compare(&rows(3, 126_464, kind), 126_336, &sampler(filter));
            compare(&rows(3, 126_464, kind), 126_336, &by_model(filter));
            compare(&rows(3, 126_464, kind), 126_336, &by_margin(filter));
        }
    }
}

/// More tokens as good as the k-th than any margin: all are kept, as on the host.
#[test]
fn all_ties_with_the_last_kept_token_are_kept() {
    let mut values = vec![0.5f32; 3000];
    (values[7], values[20], values[21]) = (2.0, f32::NEG_INFINITY, 9.0);
    let few = [vec![1.0f32, 2.0], vec![f32::NEG_INFINITY; 2998]].concat();
    let logits_NV = Tensor::from_slice(&[values, few].concat()).view([2, 3000]);
    for filter in [(1.0, 2, 1.0), (0.6, 150, 0.99), (1.0, 5000, 1.0)] {
        compare(&logits_NV, 21, &sampler(filter));
    }
    let found = distributions(logits_NV, &sampler((1.0, 2, 1.0)), 21, &uniforms(2)).unwrap();
    assert_eq!(found[0].kept().map(<[usize]>::len), Some(2998), "all but the mask and -inf");
    assert_eq!(found[1].kept(), Some(&[0, 1][..]));
}

/// Whether a row's largest 1024 logits, and its largest 8192, decide top-p.
fn decided(values: &[f32], sampler: &Sampler) -> [bool; 2] {
    let logits_1V = Tensor::from_slice(values).view([1, -1]);
    WIDTHS.map(|width| {
        top_p_within(&logits_1V, &[0], width, (sampler, &[None])).unwrap()[0].is_some()
    })
}

/// A peaked row needs few logits, a flat one more or all of them; each gives what the scan gives.
#[test]
fn top_p_takes_as_many_logits_as_decide_it() {
    crate::use_one_thread();
    let of = |scale: f64, temperature| {
        let sampler = sampler((temperature, 0, 0.9));
        let mut values = logits(126_464, scale, 1);
        compare(&Tensor::from_slice(&values).view([1, -1]), 126_336, &sampler);
        values[126_336] = f32::NEG_INFINITY;
        decided(&values, &sampler)
    };
    assert_eq!([of(8.0, 1.0), of(4.0, 1.0), of(0.1, 1.0)], [[true; 2], [false, true], [false; 2]]);
}

/// More rows than are read at once, some decided and others not: each gets its own distribution.
#[test]
fn rows_that_top_p_leaves_open_get_their_own_distributions() {
    crate::use_one_thread();
    let row = |n: usize| {
        let mut values = [vec![0.0f32; 512], vec![-200.0; 1024]].concat();
        values.rotate_right(n * 2);
        if n.is_multiple_of(5) {
            values[n] = 9.0;
        }
        values
    };
    let sampler = sampler((1.0, 0, 0.5));
    for v in [1000, 1536] {
        let all: Vec<Vec<f32>> = (0..200).map(|n| row(n)[..v].to_vec()).collect();
        let open = all.iter().filter(|values| decided(values, &sampler) == [false; 2]).count();
        assert_eq!(open, 160, "{v}");
        let logits_NV = Tensor::from_slice(&all.concat()).view([200, length(v)]);
        compare(&logits_NV, v - 1, &sampler);
    }
}

/// Of tokens that are equal at the border the lowest ids are kept, also where more are equal than come to the host.
#[test]
fn top_p_keeps_the_lowest_ids_of_equals() {
    let mut values = vec![0.0f32; 20_000];
    for n in 0..1000 {
        values[(n * 37 + 11) % 20_000] = 6.0 - (n % 3) as f32 * 0.5;
    }
    let mut negative_zeros = values.clone();
    negative_zeros.iter_mut().step_by(3).for_each(|value| *value *= -1.0);
    for values in [&values, &negative_zeros, &vec![1.0; 20_000], &vec![-0.0; 5000]] {
        for p in [1e-9, 0.1, 0.3, 0.5, 0.9, 0.95, 0.999] {
            for temperature in [0.5, 1.0, 3.0] {
                let filter = (temperature, 0, p);
                compare(&Tensor::from_slice(values).view([1, -1]), 7, &sampler(filter));
            }
        }
    }
}

/// Where a sum of masses is p itself, the last bits of sums in the scan's order decide: the device leaves it to the scan.
#[test]
fn top_p_at_the_border_is_left_to_the_scan() {
    let values = [vec![0.0f32; 512], vec![-200.0; 1024]].concat();
    for p in [0.25, 0.5, 0.75] {
        let sampler = sampler((1.0, 0, p));
        assert_eq!(decided(&values, &sampler), [false; 2], "{p}");
        for mask in [600, 1535] {
            compare(&Tensor::from_slice(&values).view([1, -1]), mask, &sampler);
        }
    }
    assert_eq!(decided(&values, &sampler((1.0, 0, 0.501))), [true; 2]);
}

/// The lowest id of equals, never the mask.
#[test]
fn greedy_ties_go_to_the_lowest_id() {
    let mut values = vec![0.0f32; 3000];
    (values[1500], values[2700], values[2800]) = (1.0, 1.0, 5.0);
    let logits_NV = Tensor::from_slice(&values).view([1, 3000]);
    let best = |mask| {
        let greedy = sampler((0.0, 0, 1.0));
        distributions(logits_NV.copy(), &greedy, mask, &uniforms(1)).unwrap()[0].choose(|| 0.5)
    };
    assert_eq!((best(2800), best(1500)), (1500, 2800));
    compare(&logits_NV, 2800, &sampler((0.0, 0, 1.0)));
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    for filter in FILTERS {
        for wrong in [f32::NAN, f32::INFINITY] {
            let logits_NV = rows(3, 2000, Kind::Float);
            drop(logits_NV.get(1).narrow(0, 1999, 1).fill_(f64::from(wrong)));
            for sampler in [sampler(filter), by_model(filter)] {
                let refused = distributions(logits_NV.copy(), &sampler, 3, &uniforms(3));
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains("training has diverged"), "{filter:?}: {refused}");
            }
        }
    }
}

/// A position gives the same bits alone and among others.
#[test]
fn a_position_does_not_depend_on_those_beside_it() {
    let logits_NV = rows(130, 1500, Kind::Float);
    for filter in FILTERS {
        let of = |logits_NV: Tensor, uniforms: &[Vec<f64>]| {
            let all = distributions(logits_NV, &sampler(filter), 3, uniforms).unwrap();
            all.into_iter().map(|one| format!("{one:?}")).collect::<Vec<_>>()
        };
        let whole = of(logits_NV.copy(), &uniforms(130));
        for n in [0, 1, 63, 64, 129] {
            let alone = of(logits_NV.narrow(0, length(n), 1).copy(), &uniforms(130)[n..=n]);
            assert_eq!(alone[0], whole[n], "{filter:?}, {n}");
        }
    }
}

/// What the learner computes of all tokens on a device is what the sampler records.
#[test]
fn unfiltered_log_probabilities_are_the_learner_s_to_the_bit() {
    let (logits_NV, mask) = (rows(5, 1500, Kind::Float), 3);
    let uniforms = uniforms(5);
    let found = distributions(logits_NV.copy(), &sampler((0.6, 0, 1.0)), mask, &uniforms).unwrap();
    let masked: Vec<bool> = (0..1500).map(|id| id == mask).collect();
    let masked = Tensor::from_slice(&masked).unsqueeze(0);
    let learner = Rows::new(&logits_NV, 0.6, Some(&masked));
    let logps: Vec<f32> = numbers(&learner.log_probabilities()).unwrap();
    for ((n, found), uniforms) in found.iter().enumerate().zip(&uniforms) {
        for &uniform in uniforms {
            let token = found.choose(|| uniform);
            assert_eq!(found.logp(token), logps[n * 1500 + token]);
        }
    }
}
