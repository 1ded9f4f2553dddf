//! The kept set of one position: the tokens that survive top-k and top-p. Needs no order of the whole vocabulary.
//!
//! Top-k keeps ties with its threshold; top-p keeps a token only while the cumulative probability
//! including it stays at or below p, and always the most probable one (the AGRPO reference's rule). Of equal tokens,
//! the lower id comes first.

use std::cmp::Ordering;

use agrpo_spec::Sampler;

use crate::kernels::histogram::Buckets;
use crate::kernels::row::{Row, largest};
use crate::kernels::softmax::Weights;

/// Whether top-k or top-p drops tokens, and kept sets are recorded.
pub(super) fn is_filtered(sampler: &Sampler) -> bool {
    sampler.top_k > 0 || sampler.top_p.get() < 1.0
}

/// The ids that a sampler keeps of one row of V logits, ascending; `None` where a logit is no number.
pub fn kept_tokens(logits: &[f32], sampler: &Sampler, mask: usize) -> Option<Vec<usize>> {
    kept_set(&Row { values: logits, excluded: Some(mask) }, sampler)
}

/// The ids that survive top-k and top-p, ascending; `None` where a logit is no number or none is finite.
pub(super) fn kept_set(row: &Row<'_>, sampler: &Sampler) -> Option<Vec<usize>> {
    let logits = Logits::new(row)?;
    let (k, p) = (sampler.top_k as usize, sampler.top_p.get());
    let temperature = sampler.temperature.get();
    let weights = Weights::new(logits.max, temperature);
    if k == 0 {
        let all = || logits.from(f32::MIN);
        return Some(if p < 1.0 { logits.top_p(p, weights, temperature) } else { all() });
    }
    let mut kept = logits.top_k(k);
    if p < 1.0 {
        let masses = logits.masses(&mut kept, weights);
        let limit = p * masses.iter().sum::<f64>();
        kept.truncate(within(&masses, 0.0, limit).max(1));
    }
    kept.sort_unstable();
    Some(kept)
}

/// How far the mass that a device finds may be from the one that the host's weights add up to, as a share of it: both round
/// exponentials, by a few units of the last place of f32.
const EXP_TOLERANCE: f64 = 1e-6;

/// How far sums of the same f64 numbers in another order may be apart, as a share of them.
const SUM_TOLERANCE: f64 = 1e-9;

/// How many of a row's largest logits, best first, survive top-p, where the others have about the mass `outside`. None
/// where these numbers leave open what the scan of the whole row finds: a sum is too close to p, or not reached.
pub(super) fn top_p_of_largest(best: &[f32], outside: f64, sampler: &Sampler) -> Option<usize> {
    let mut weights = vec![0.0; best.len()];
    Weights::new(best[0], sampler.temperature.get()).fill(&mut weights, best);
    let masses: Vec<f64> = weights.into_iter().map(f64::from).collect();
    let all = masses.iter().sum::<f64>() + outside;
    let doubt = EXP_TOLERANCE * outside + SUM_TOLERANCE * all;
    let count = |all: f64| within(&masses, 0.0, sampler.top_p.get() * all);
    let (least, most) = (count(all - doubt), count(all + doubt));
    (least == most && most < best.len()).then_some(most.max(1))
}

/// How many masses, added one by one to `before`, stay at or below the limit.
fn within(masses: &[f64], before: f64, limit: f64) -> usize {
    let mut cumulative = before;
    let is_within = |mass: &&f64| {
        cumulative += **mass;
        cumulative <= limit
    };
    masses.iter().take_while(is_within).count()
}

/// A row and the maxima of its blocks, by which most tokens are passed over.
struct Logits<'a> {
    row: &'a Row<'a>,
    maxima: Vec<f32>,
    max: f32,
}

impl<'a> Logits<'a> {
    fn new(row: &'a Row<'a>) -> Option<Self> {
        let maxima = row.maxima();
        let max = largest(&maxima);
        max.is_finite().then_some(Self { row, maxima, max })
    }

    fn best_first(&self) -> impl Fn(&usize, &usize) -> Ordering {
        let values = self.row.values;
        |a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b))
    }

    /// The ids of the tokens that have a logit of at least this, ascending.
    fn from(&self, least: f32) -> Vec<usize> {
        let is_in = |value| value >= least;
        self.row.collect(&self.maxima, is_in, is_in)
    }

    /// In no order, the k most probable tokens and those that are as probable as the last of them.
    fn top_k(&self, k: usize) -> Vec<usize> {
        // At least k tokens reach the k-th largest maximum of a block.
        let least = if k < self.maxima.len() {
            let mut maxima = self.maxima.clone();
            *maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        } else {
            f32::MIN
        };
        let mut ids = self.from(least.max(f32::MIN));
        if k < ids.len() {
            let (_, &mut threshold, _) = ids.select_nth_unstable_by(k - 1, self.best_first());
            let threshold = self.row.values[threshold];
            ids.retain(|&id| self.row.values[id] >= threshold);
        }
        ids
    }

    /// Orders tokens, best first; their weights, 1 at the row's largest logit.
    fn masses(&self, ids: &mut [usize], of: Weights) -> Vec<f64> {
        ids.sort_unstable_by(self.best_first());
        let logits: Vec<f32> = ids.iter().map(|&id| self.row.values[id]).collect();
        let mut weights = vec![0.0; logits.len()];
        of.fill(&mut weights, &logits);
        weights.into_iter().map(f64::from).collect()
    }

    /// Top-p over the whole row, ascending. A histogram of the mass says between which logits p is passed; only the tokens
    /// there are put in order.
    fn top_p(&self, p: f64, weights: Weights, temperature: f64) -> Vec<usize> {
        let buckets = Buckets::new(self.max, temperature);
        let masses = buckets.masses(self.row, weights);
        let limit = p * masses.iter().sum::<f64>();
        let whole = within(&masses, 0.0, limit);
        let before: f64 = masses[..whole].iter().sum();
        // The bucket in which p is passed.
        let reaches = |value| buckets.of(value) as usize <= whole;
        let is_in = |value| value >= f32::MIN && buckets.of(value) as usize == whole;
        let mut edge = self.row.collect(&self.maxima, reaches, is_in);
        let count = within(&self.masses(&mut edge, weights), before, limit);
        let count = count.max(usize::from(whole == 0));
        let Some(&dropped) = edge.get(count) else {
            let is_in = |value| value >= f32::MIN && reaches(value);
            return self.row.collect(&self.maxima, reaches, is_in);
        };
        // All that are better than the best one that is dropped.
        let limit = self.row.values[dropped];
        let mut kept = self.row.collect(&self.maxima, |max| max > limit, |value| value > limit);
        let is_tied = |id: &&usize| self.row.values[**id] == limit;
        let better = kept.len();
        kept.extend(edge[..count].iter().filter(is_tied));
        if kept.len() > better {
            kept.sort_unstable();
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::PositionRule;

    use super::*;
    use crate::kernels::softmax::tests::logits;
    use crate::testing::real;

    fn sampler(top_k: u32, top_p: f64, temperature: f64) -> Sampler {
        let plain = crate::testing::sampler(8, 8, 8, PositionRule::Random);
        Sampler { top_k, top_p: real(top_p), temperature: real(temperature), ..plain }
    }

    fn kept(values: &[f32], top_k: u32, top_p: f64) -> Vec<usize> {
        kept_set(&Row { values, excluded: None }, &sampler(top_k, top_p, 1.0)).unwrap()
    }

    #[test]
    fn top_k_keeps_ties_and_top_p_drops_the_crossing_token() {
        let logits = [0.0, 2.0, 1.0, 1.0, f32::NEG_INFINITY];
        assert_eq!(kept(&logits, 2, 1.0), [1, 2, 3]);
        assert_eq!(kept(&logits, 0, 1.0), [0, 1, 2, 3]);
        let p = [0.5f32, 0.3, 0.2].map(f32::ln);
        for top_k in [0, 3] {
            assert_eq!(kept(&p, top_k, 0.79), [0], "the second would cross p");
            assert_eq!(kept(&p, top_k, 0.81), [0, 1]);
            assert_eq!(kept(&p, top_k, 0.1), [0], "the most probable always stays");
        }
    }

    /// The definition, by sorting the whole row.
    fn by_sorting(row: &Row<'_>, sampler: &Sampler) -> Vec<usize> {
        let values = row.values;
        let mut order: Vec<usize> = (0..values.len())
            .filter(|&v| values[v] > f32::NEG_INFINITY && row.excluded != Some(v))
            .collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        if let Some(&last) = order.get((sampler.top_k as usize).wrapping_sub(1)) {
            order.retain(|&v| values[v] >= values[last]);
        }
        if sampler.top_p.get() < 1.0 {
            truncate(&mut order, values, sampler);
        }
        order.sort_unstable();
        order
    }

    fn truncate(order: &mut Vec<usize>, values: &[f32], sampler: &Sampler) {
        let temperature = sampler.temperature.get();
        let distance = |&v: &usize| f64::from(values[v]) - f64::from(values[order[0]]);
        let mass: Vec<f64> = order.iter().map(|v| libm::exp(distance(v) / temperature)).collect();
        let limit = sampler.top_p.get() * mass.iter().sum::<f64>();
        let mut sum = 0.0;
        let within = mass.iter().take_while(|&&m| {
            sum += m;
            sum <= limit
        });
        order.truncate(within.count().max(1));
    }

    #[test]
    fn kept_sets_are_those_of_a_sorted_row() {
        for (count, mask) in [(2, 0), (7, 6), (100, 31), (1024, 1000), (1057, 1056), (9000, 17)] {
            for (spread, seed) in [(0.02, 1), (1.0, 2), (3.0, 3), (12.0, 4)] {
                let mut values = logits(count, spread, seed);
                if seed % 2 == 0 {
                    // Many ties, and tokens without probability.
                    values.iter_mut().for_each(|v| *v = (*v * 4.0).round() / 4.0);
                    values.iter_mut().step_by(5).for_each(|v| *v = f32::NEG_INFINITY);
                    values[mask] = 50.0;
                    values[1] = 0.0;
                }
                let row = Row { values: &values, excluded: Some(mask) };
                for top_k in [0, 1, 3, 40, 500, 20_000] {
                    for top_p in [1e-9, 0.3, 0.9, 0.99, 1.0] {
                        for temperature in [0.3, 1.0, 2.0] {
                            let sampler = sampler(top_k, top_p, temperature);
                            let found = kept_set(&row, &sampler).unwrap();
                            let expected = by_sorting(&row, &sampler);
                            assert_eq!(found, expected, "{count}, {spread}, {sampler:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_without_numbers_has_no_kept_set() {
        for wrong in [f32::NAN, f32::INFINITY] {
            for sampler in [sampler(3, 1.0, 1.0), sampler(0, 0.9, 1.0)] {
                let mut values = logits(2000, 1.0, 1);
                values[1234] = wrong;
                assert_eq!(kept_set(&Row { values: &values, excluded: Some(0) }, &sampler), None);
                let excluded = Some(1234);
                assert!(kept_set(&Row { values: &values, excluded }, &sampler).is_some());
            }
        }
    }
}
