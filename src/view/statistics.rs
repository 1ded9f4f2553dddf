//! Means, variances, and the intervals of shares: Wilson's interval and the unbiased pass@m.
//!
//! Shares are read from histograms: `solved_by[c]` problems have c right ones among their `solved_by.len() - 1`
//! completions. Draws nothing at random, so there is no bootstrap; formats nothing.

use agrpo_spec::EvaluationResult;
use serde::Serialize;

/// The standard normal distribution's quantile for intervals of 95 %.
pub(crate) const Z95: f64 = 1.959_963_984_540_054;

/// Largest rounding difference between a share and an accuracy of the same completions.
const SAME: f64 = 1e-9;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A share with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// As measured.
    pub share: f64,
    /// The interval of the true one.
    pub interval: Interval,
}

/// The mean; no number where there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample's variance; 0 where there are fewer than two values.
pub fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 2 { 0.0 } else { squares / (values.len() - 1) as f64 }
}

/// The interval of 95 % of an accuracy; none where answers earn parts of points, which is no share of right ones.
pub fn interval(grades: &EvaluationResult) -> Option<Interval> {
    let estimate = pass_at(&grades.solved_by, 1)?;
    ((estimate.share - grades.accuracy).abs() < SAME).then_some(estimate.interval)
}

/// Wilson's score interval of 95 % for a share p seen in n independent trials, n > 0 (E. B. Wilson,
/// "Probable inference, the law of succession, and statistical inference", JASA 22, 1927, p. 210):
///
/// (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)
///
/// It never leaves 0 to 1, and keeps a width where p is 0 or 1.
fn wilson(share: f64, trials: f64) -> Interval {
    let (p, n, z2) = (share, trials, Z95 * Z95);
    let half = Z95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let (middle, scale) = (p + z2 / (2.0 * n), 1.0 + z2 / n);
    Interval {
        low: ((middle - half) / scale).clamp(0.0, share),
        high: ((middle + half) / scale).clamp(share, 1.0),
    }
}

/// pass@m: the chance that at least one of m completions of a problem is right, over all problems.
/// `None` where problems have fewer than m completions, or there are no problems.
///
/// The completions of one problem are not independent, so the interval is Wilson's at the effective sample size: n =
/// N p (1 - p) / s², with s² the variance over the N problems (E. L. Korn and B. I. Graubard, "Confidence intervals
/// for proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24,
/// 1998, sec. 2). It lies between N and the number of disjoint sets of m completions.
pub fn pass_at(solved_by: &[u64], m: usize) -> Option<Estimate> {
    let draws = solved_by.len().checked_sub(1)?;
    let problems = solved_by.iter().sum::<u64>() as f64;
    if m == 0 || m > draws || problems == 0.0 {
        return None;
    }
    let value = |(right, &n): (usize, &u64)| (pass_of_problem(draws, right, m), n as f64);
    let values: Vec<(f64, f64)> = solved_by.iter().enumerate().map(value).collect();
    let mean = values.iter().map(|(value, n)| value * n).sum::<f64>() / problems;
    // Weighted sums of ones may miss 1 by a bit.
    let share = mean.clamp(0.0, 1.0);
    let spread = values.iter().map(|(value, n)| (value - share).powi(2) * n).sum::<f64>();
    let (variance, most) = (spread / problems, problems * (draws / m) as f64);
    let trials = match share * (1.0 - share) {
        ..=f64::EPSILON => problems,
        _ => (problems * share * (1.0 - share) / variance).clamp(problems, most),
    };
    Some(Estimate { share, interval: wilson(share, trials) })
}

/// 1 - C(n - c, m) / C(n, m) for c right ones of n completions, as the product of Chen et al.,
/// "Evaluating large language models trained on code", arXiv 2107.03374, eq. 1 and fig. 3:
///
/// 1 - prod of (1 - m / i) for i in n - c + 1 ..= n
fn pass_of_problem(draws: usize, right: usize, m: usize) -> f64 {
    if draws - right < m {
        return 1.0;
    }
    let factor = |i: usize| 1.0 - m as f64 / i as f64;
    1.0 - (draws - right + 1..=draws).map(factor).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-5
    }

    #[test]
    fn the_variance_is_the_sample_s() {
        assert_eq!((mean(&[1.0, 3.0]), variance(&[1.0, 3.0])), (2.0, 2.0));
        assert_eq!((mean(&[1.0]), variance(&[1.0])), (1.0, 0.0));
    }

    /// Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
    #[test]
    fn wilson_gives_the_published_intervals() {
        for (right, trials, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (15.0, 148.0, 0.0624, 0.1605), (0.0, 20.0, 0.0, 0.1611)]
        {
            let found = wilson(right / trials, trials);
            assert!(near(found.low, low) && near(found.high, high), "{found:?}");
        }
    }

    #[test]
    fn pass_at_m_is_the_share_of_sets_with_a_right_one() {
        for (draws, right, m) in [(8, 3, 2), (8, 0, 4), (5, 5, 1), (6, 1, 6), (7, 2, 3)] {
            let sets = (0u32..1 << draws).filter(|set| set.count_ones() as usize == m);
            let (all, hit) = sets.fold((0.0, 0.0), |(all, hit), set| {
                (all + 1.0, hit + f64::from(u8::from(set & ((1 << right) - 1) != 0)))
            });
            let found = pass_of_problem(draws, right, m);
            assert!((found - hit / all).abs() < 1e-12, "{draws} {right} {m}: {found}");
        }
    }

    #[test]
    fn one_completion_a_problem_is_wilson_itself() {
        let found = pass_at(&[182, 81], 1).unwrap();
        assert_eq!(found.share, 81.0 / 263.0);
        assert!(near(found.interval.low, 0.2553) && near(found.interval.high, 0.3662));
        assert_eq!(pass_at(&[182, 81], 2), None);
        assert_eq!(pass_at(&[0, 0], 1), None);
        assert_eq!(pass_at(&[], 1), None);
    }

    #[test]
    fn equal_completions_of_a_problem_make_no_interval_narrower() {
        let once = pass_at(&[182, 81], 1).unwrap();
        let four_times_the_same = pass_at(&[182, 0, 0, 0, 81], 1).unwrap();
        assert_eq!(once, four_times_the_same);
        // Each problem half right: as good as independent completions.
        let spread = pass_at(&[0, 0, 100, 0, 0], 1).unwrap();
        assert_eq!(spread.interval, wilson(0.5, 400.0));
        // Nothing right: what 100 problems say, not 400 completions.
        let nothing = pass_at(&[100, 0, 0, 0, 0], 1).unwrap();
        assert_eq!(nothing.interval, wilson(0.0, 100.0));
    }
}
