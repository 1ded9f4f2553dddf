//! Tests against a plain reading of the rules in f64, on random rows under every filter.

use agrpo_spec::{Confidence, PositionRule, Seed};

use super::*;
use crate::kernels::softmax::tests::logits;
use crate::testing::real;

const FILTERS: [(f64, u32, f64); 7] = [
    (1.0, 0, 1.0),
    (0.6, 0, 1.0),
    (0.6, 150, 0.99),
    (1.0, 5, 1.0),
    (1.0, 0, 0.9),
    (2.0, 3000, 0.7),
    (0.0, 0, 1.0),
];

fn sampler((temperature, top_k, top_p): (f64, u32, f64)) -> Sampler {
    let plain = crate::testing::sampler(8, 8, 8, PositionRule::Random);
    Sampler { temperature: real(temperature), top_k, top_p: real(top_p), ..plain }
}

/// Probabilities of a row in f64, 0 outside the support.
fn plain(values: &[f32], sampler: &Sampler, mask: usize, kept: Option<&[usize]>) -> Vec<f64> {
    let greedy = is_greedy(sampler);
    let temperature = if greedy { 1.0 } else { sampler.temperature.get() };
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let is_in = |v: usize| kept.map_or(greedy || v != mask, |kept| kept.contains(&v));
    let mass = |(v, &l): (usize, &f32)| match is_in(v) {
        true => ((f64::from(l) - f64::from(max)) / temperature).exp(),
        false => 0.0,
    };
    let masses: Vec<f64> = values.iter().enumerate().map(mass).collect();
    let sum: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / sum).collect()
}

#[test]
fn draws_log_probabilities_and_entropies_are_those_of_f64() {
    for (count, mask) in [(6, 5), (1000, 0), (2049, 2048), (5000, 1024)] {
        for filter in FILTERS {
            for seed in 0..4u32 {
                let values = logits(count, 1.0 + f64::from(seed), u64::from(seed));
                let sampler = sampler(filter);
                let found = Distribution::of_logits(&values, &sampler, mask).unwrap();
                let p = plain(&values, &sampler, mask, found.kept());
                let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
                assert!((found.entropy() - entropy).abs() < 2e-6, "{filter:?}");
                for n in 0..50 {
                    let uniform = Seed::new(7).uniform(n, seed);
                    let place = found.choose(|| uniform);
                    let token = found.token(place);
                    let logp = f64::from(found.logp(place));
                    assert!((logp - p[token].ln()).abs() < 4e-7 * (1.0 - logp), "{filter:?}");
                    if is_greedy(&sampler) {
                        let best = (0..count).filter(|&v| v != mask && values[v] > values[token]);
                        assert_eq!((best.count(), token == mask), (0, false));
                        continue;
                    }
                    let before: f64 = p[..token].iter().sum();
                    let inside = before - 1e-6..before + p[token] + 1e-6;
                    assert!(p[token] > 0.0 && inside.contains(&uniform), "{filter:?}: {uniform}");
                }
            }
        }
    }
}

/// Under every filter: tokens and records are the sampler's to the bit, confidences those of the softmax of all logits.
#[test]
fn confidence_by_the_model_changes_no_draw_and_no_record() {
    for (count, mask) in [(6, 5), (1000, 0), (5000, 1024)] {
        for filter in FILTERS {
            let values = logits(count, 2.0, 3);
            let own = sampler(filter);
            let by_model = Sampler {
                position: PositionRule::LowConfidence,
                confidence: Confidence::Model,
                ..own.clone()
            };
            let of = |sampler| Distribution::of_logits(&values, sampler, mask).unwrap();
            let (own, by_model) = (of(&own), of(&by_model));
            let model = plain(&values, &sampler((0.0, 0, 1.0)), mask, None);
            for n in 0..50 {
                let uniform = Seed::new(8).uniform(n, 0);
                let place = own.choose(|| uniform);
                assert_eq!(by_model.choose(|| uniform), place);
                assert_eq!(by_model.logp(place), own.logp(place));
                assert_eq!(own.confidence(place), own.logp(place));
                let (found, p) = (by_model.confidence(place), model[own.token(place)]);
                assert!((f64::from(found) - p.ln()).abs() < 1e-6 * (1.0 - p.ln()), "{filter:?}");
            }
            assert_eq!((by_model.entropy(), by_model.kept()), (own.entropy(), own.kept()));
        }
    }
}

/// Under every filter: of the two most probable tokens that the distribution has, the mask among them where it is greedy.
#[test]
fn margins_are_those_of_f64() {
    for (count, mask) in [(6, 5), (1000, 0), (5000, 1024)] {
        for filter in FILTERS {
            for seed in 0..4 {
                let mut values = logits(count, 2.0, seed);
                if seed == 3 {
                    values[mask] = 6.0;
                }
                let sampler = sampler(filter);
                let found = Distribution::of_logits(&values, &sampler, mask).unwrap();
                let mut p = plain(&values, &sampler, mask, found.kept());
                p.sort_by(f64::total_cmp);
                let margin = p[count - 1] - p[count - 2];
                assert!((found.margin() - margin).abs() < 1e-6, "{filter:?}: {margin}");
            }
        }
    }
}

#[test]
fn every_uniform_number_finds_a_possible_token() {
    let logits = [f32::NEG_INFINITY, 0.25f32.ln(), 0.75f32.ln(), f32::NEG_INFINITY, 9.0];
    let found = Distribution::of_logits(&logits, &sampler((1.0, 0, 1.0)), 4).unwrap();
    assert_eq!(found.choose(|| 0.0), 1);
    assert_eq!(found.choose(|| 0.2499), 1);
    assert_eq!(found.choose(|| 0.2501), 2);
    assert_eq!(found.choose(|| 1.0), 2);
}

#[test]
fn greedy_ties_go_to_the_lowest_id_and_never_to_the_mask() {
    let best = |logits: &[f32], mask| {
        let greedy = sampler((0.0, 0, 1.0));
        Distribution::of_logits(logits, &greedy, mask).unwrap().choose(|| 0.5)
    };
    assert_eq!(best(&[0.0, 1.0, 1.0, 5.0], 3), 1);
    assert_eq!(best(&[0.0, 1.0, 1.0], 1), 2);
    let mut many = [0.0; 3000];
    (many[1500], many[2700]) = (1.0, 1.0);
    assert_eq!(best(&many, 7), 1500);
    assert_eq!(best(&many, 1500), 2700);
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    for filter in FILTERS {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut values = logits(2000, 1.0, 1);
            values[1999] = wrong;
            let refused = Distribution::of_logits(&values, &sampler(filter), 3).unwrap_err();
            assert!(refused.to_string().contains("training has diverged"), "{refused}");
        }
    }
}
