//! One position's decision: the kept set, the token, its log-probability, the entropy.
//!
//! Top-k keeps ties with its threshold; top-p keeps a token only while the cumulative probability
//! including it stays at or below p, and always the most probable one (the AGRPO reference's rule).
//! Tokens are drawn by inverse CDF in f64: one uniform number a token.

use agrpo_spec::Sampler;

/// The tokens that survive top-k and top-p, ascending. `scaled` are logits divided by the
/// temperature, -inf where a token is forbidden.
pub(super) fn kept_set(scaled: &[f32], sampler: &Sampler) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..scaled.len()).filter(|&v| scaled[v] > f32::NEG_INFINITY).collect();
    let best_first = |&a: &usize, &b: &usize| scaled[b].total_cmp(&scaled[a]).then(a.cmp(&b));
    let k = sampler.top_k as usize;
    if k > 0 && k < order.len() {
        // Of a large vocabulary few are kept: the others need no order.
        order.select_nth_unstable_by(k - 1, best_first);
        let threshold = scaled[order[k - 1]];
        order.retain(|&v| scaled[v] >= threshold);
    }
    order.sort_unstable_by(best_first);
    if sampler.top_p.get() < 1.0 {
        let top = f64::from(scaled[order[0]]);
        let mass: Vec<f64> = order.iter().map(|&v| libm::exp(f64::from(scaled[v]) - top)).collect();
        let limit = sampler.top_p.get() * mass.iter().sum::<f64>();
        let mut cumulative = 0.0;
        let within = mass.iter().take_while(|&&m| {
            cumulative += m;
            cumulative <= limit
        });
        let count = within.count().max(1);
        order.truncate(count);
    }
    order.sort_unstable();
    order
}

/// The token whose interval of the cumulative distribution holds `uniform`. `logps` are normalised
/// log-probabilities, -inf outside the kept set.
pub(super) fn draw(logps: &[f32], uniform: f64) -> usize {
    let mass = |logp: f32| if logp == f32::NEG_INFINITY { 0.0 } else { libm::exp(f64::from(logp)) };
    let target = uniform * logps.iter().map(|&logp| mass(logp)).sum::<f64>();
    let mut cumulative = 0.0;
    let mut last = 0;
    for (v, &logp) in logps.iter().enumerate() {
        let m = mass(logp);
        if m > 0.0 {
            cumulative += m;
            last = v;
            if target < cumulative {
                return v;
            }
        }
    }
    // Rounding can leave the target on the upper end, which belongs to the last kept token.
    last
}

/// The most probable token but the mask; the lowest id of a tie.
pub(super) fn argmax(logps: &[f32], mask: i64) -> usize {
    let allowed = (0..logps.len()).filter(|&v| i64::try_from(v) != Ok(mask));
    allowed.reduce(|best, v| if logps[v] > logps[best] { v } else { best }).unwrap_or(0)
}

pub(super) fn entropy(logps: &[f32]) -> f64 {
    let terms = logps.iter().filter(|&&logp| logp > f32::NEG_INFINITY);
    -terms.map(|&logp| libm::exp(f64::from(logp)) * f64::from(logp)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use agrpo_spec::PositionRule;

    use super::*;
    use crate::testing::real;

    fn sampler(top_k: u32, top_p: f64) -> Sampler {
        let plain = crate::testing::sampler(8, 8, 8, PositionRule::Random);
        Sampler { top_k, top_p: real(top_p), ..plain }
    }

    #[test]
    fn top_k_keeps_ties_and_top_p_drops_the_crossing_token() {
        let logits = [0.0, 2.0, 1.0, 1.0, f32::NEG_INFINITY];
        assert_eq!(kept_set(&logits, &sampler(2, 1.0)), [1, 2, 3]);
        assert_eq!(kept_set(&logits, &sampler(0, 1.0)), [0, 1, 2, 3]);
        let p = [0.5f32, 0.3, 0.2].map(f32::ln);
        assert_eq!(kept_set(&p, &sampler(0, 0.79)), [0], "the second would cross p");
        assert_eq!(kept_set(&p, &sampler(0, 0.81)), [0, 1]);
        assert_eq!(kept_set(&p, &sampler(0, 0.1)), [0], "the most probable always stays");
    }

    #[test]
    fn every_uniform_number_finds_a_possible_token() {
        let logps = [f32::NEG_INFINITY, 0.25f32.ln(), 0.75f32.ln(), f32::NEG_INFINITY];
        assert_eq!(draw(&logps, 0.0), 1);
        assert_eq!(draw(&logps, 0.2499), 1);
        assert_eq!(draw(&logps, 0.2501), 2);
        assert_eq!(draw(&logps, 1.0), 2);
    }

    #[test]
    fn greedy_ties_go_to_the_lowest_id_and_never_to_the_mask() {
        assert_eq!(argmax(&[0.0, 1.0, 1.0], 3), 1);
        assert_eq!(argmax(&[0.0, 1.0, 1.0], 1), 2);
        assert!((entropy(&[0.5f32.ln(), 0.5f32.ln()]) - 2f64.ln()).abs() < 1e-7);
    }
}
