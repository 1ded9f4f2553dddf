//! Tests against f64: the exponential over its whole range, rows of all lengths, the gradient by differences.

use agrpo_spec::Seed;

use super::*;
use crate::kernels::row::largest;

/// Logits of a spread, far from equal.
pub(crate) fn logits(count: usize, spread: f64, seed: u64) -> Vec<f32> {
    let seed = Seed::new(seed);
    let uniform = |v: usize, of: u32| seed.uniform(u32::try_from(v).unwrap(), of);
    #[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
    // Nearly normal.
    let logit = |v| (spread * ((0..4).map(|of| uniform(v, of)).sum::<f64>() - 2.0) * 1.7) as f32;
    (0..count).map(logit).collect()
}

fn softmax(row: &Row<'_>, temperature: f64) -> Softmax {
    Softmax::new(row, largest(&row.maxima()), temperature)
}

/// log p of every token in f64.
fn plain(row: &Row<'_>, temperature: f64) -> Vec<f64> {
    let scaled = |(v, &l): (usize, &f32)| match row.excluded == Some(v) {
        true => f64::NEG_INFINITY,
        false => f64::from(l) / temperature,
    };
    let scaled: Vec<f64> = row.values.iter().enumerate().map(scaled).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|&l| libm::exp(l - max)).sum();
    scaled.iter().map(|l| l - max - libm::log(sum)).collect()
}

#[test]
fn log_probabilities_and_entropies_are_those_of_f64() {
    for (count, excluded) in
        [(1, None), (6, Some(5)), (1024, Some(0)), (1025, Some(1024)), (5000, None)]
            .into_iter()
            .chain([(126_464, Some(126_336))])
    {
        for (spread, temperature) in [(0.0, 1.0), (1.0, 1.0), (4.0, 0.6), (10.0, 2.5)] {
            let values = logits(count, spread, 3);
            let row = Row { values: &values, excluded };
            let (found, exact) = (softmax(&row, temperature), plain(&row, temperature));
            for (v, exact) in exact.iter().enumerate().filter(|(v, _)| excluded != Some(*v)) {
                let logp = f64::from(found.logp(values[v]));
                assert!(
                    (logp - exact).abs() < 2e-7 * (2.0 + exact.abs()),
                    "{count}: {logp}, {exact}"
                );
            }
            let terms = exact.iter().filter(|logp| **logp > f64::NEG_INFINITY);
            let entropy = -terms.map(|logp| libm::exp(*logp) * logp).sum::<f64>();
            assert!((found.entropy() - entropy).abs() < 2e-6, "{count} at {spread}");
        }
    }
}

/// The token that is left out does not count, whatever its logit.
#[test]
fn an_excluded_token_has_no_part() {
    let mut values = logits(3000, 2.0, 4);
    let with = |values: &[f32]| softmax(&Row { values, excluded: Some(1500) }, 0.7).logp(1.0);
    let before = with(&values);
    for huge in [1e30, f32::NAN, f32::INFINITY] {
        values[1500] = huge;
        assert_eq!(with(&values), before);
    }
    values[1500] = f32::NEG_INFINITY;
    let row = Row { values: &values, excluded: None };
    assert_eq!(softmax(&row, 0.7).logp(1.0), before);
}

#[test]
fn rows_without_a_distribution_are_told_apart() {
    for wrong in [f32::NAN, -f32::NAN, f32::INFINITY] {
        for place in [0, 40, 2999] {
            let mut values = logits(3000, 2.0, 4);
            values[place] = wrong;
            let row = Row { values: &values, excluded: None };
            assert!(!softmax(&row, 1.0).is_distribution(), "{wrong} at {place}");
        }
    }
    let nothing = Row { values: &[f32::NEG_INFINITY; 5], excluded: None };
    assert!(!softmax(&nothing, 1.0).is_distribution());
}

#[test]
fn the_gradient_is_that_of_the_picked_log_probabilities() {
    let values = logits(2100, 2.0, 5);
    let row = Row { values: &values, excluded: Some(7) };
    let picks = [(3, 0.5), (2050, -1.25), (3, 0.125)];
    let mut gradient = vec![1.0; values.len()];
    softmax(&row, 0.8).add_gradient(&row, &picks, &mut gradient);
    for (v, exact) in plain(&row, 0.8).into_iter().enumerate() {
        let one = |&(place, g): &(usize, f64)| g * (f64::from(u8::from(place == v)) - exact.exp());
        let exact = 1.0 + picks.iter().map(one).sum::<f64>() / 0.8;
        assert!((f64::from(gradient[v]) - exact).abs() < 2e-7, "{v}: {}, {exact}", gradient[v]);
    }
    assert_eq!(gradient[7], 1.0, "nothing outside the support");
}
