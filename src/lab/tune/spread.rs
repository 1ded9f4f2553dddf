//! Statistics of repeated estimates of one vector: how much they vary, and how far off their mean is.
//!
//! Estimates x_1 .. x_n are independent and of one distribution with mean mu and covariance Sigma; the
//! target t is exact. The mean is kept, and the first [`HELD`] estimates for `tr(Sigma^2)`: more would
//! cost memory and add little.
//! ```text
//! m_i = m_(i-1) + (x_i - m_(i-1)) / i,   S_i = S_(i-1) + <x_i - m_(i-1), x_i - m_i>              (1)
//! variance  s2 = S_n / (n - 1), which has the expectation tr(Sigma)
//! bias      b2 = |m_n - t|^2 - s2 / n, which has the expectation |mu - t|^2                      (2)
//! its error, where mu = t:   sqrt(2 tr(Sigma^2) / (n (n - 1)))                                   (3)
//! tr(Sigma^2) from C_ij = <x_i - m, x_j - m> over all pairs of those held, l = their number - 1:
//!           q = l^2 / ((l + 2) (l - 1)) (sum C_ij^2 / l^2 - (sum C_ii / l)^2 / l)                (4)
//! its z     n |m_n - t|^2 / s2 has about the distribution F(r, r (n - 1)) where mu = t,
//!           r = tr(Sigma)^2 / tr(Sigma^2)                                                        (5)
//! cosine    <mu, t> / (|mu| |t|) from <m, t>^2 - s2(<x, t>) / n and |m|^2 - s2 / n
//! ```
//! (1) B. P. Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4,
//! 1962, with scalar products for products. (2), (3) the sum over pairs of `<x_i - t, x_j - t>`, and its variance: S.
//! X. Chen and Y.-L. Qin, "A two-sample test for high-dimensional data with applications to gene-set testing", Ann.
//! Statist. 38, 2010, sec. 2. (4) Z. Bai and H. Saranadasa, "Effect of high dimension", Statistica Sinica 6, 1996.
//! (5) A. P. Dempster, "A significance test for the separation of two highly multivariate small samples", Biometrics
//! 16, 1960: b2 by its error would have far longer tails than a normal number's where few directions vary. No
//! estimate is drawn here, and none is judged.

/// Estimates kept for the products of all pairs.
const HELD: u32 = 64;

/// Running mean of vectors, and the sum of their squared distances from it.
#[derive(Debug)]
pub(super) struct Moments {
    count: u32,
    pub(super) mean: Vec<f64>,
    squares: f64,
}

impl Moments {
    /// Of no vector yet; each will have this length.
    pub(super) fn new(length: usize) -> Self {
        Self { count: 0, mean: vec![0.0; length], squares: 0.0 }
    }

    /// Equation (1).
    pub(super) fn add(&mut self, vector: &[f64]) {
        self.count += 1;
        let n = f64::from(self.count);
        for (mean, x) in self.mean.iter_mut().zip(vector) {
            let before = x - *mean;
            *mean += before / n;
            self.squares += before * (x - *mean);
        }
    }

    /// s2, the trace of the sample covariance; 0 of fewer than two vectors.
    pub(super) fn variance(&self) -> f64 {
        self.squares / f64::from(self.count.saturating_sub(1).max(1))
    }

    /// s2 / n, by which the square of the mean's length is too large.
    fn variance_of_mean(&self) -> f64 {
        self.variance() / f64::from(self.count.max(1))
    }
}

#[derive(Debug)]
pub(super) struct Estimates<'a> {
    target: &'a [f64],
    moments: Moments,
    /// Of <x, t>.
    along: Moments,
    /// The first x_i - t.
    held: Vec<Vec<f64>>,
    /// Their scalar products, each with those up to itself.
    products: Vec<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// tr(Sigma).
    pub(super) variance: f64,
    /// |mu - t|^2; below 0 where noise is larger than bias.
    pub(super) bias: f64,
    /// The bias's standard error where there is none.
    pub(super) bias_error: f64,
    /// A standard normal number where there is no bias; none where nothing varies.
    pub(super) bias_z: Option<f64>,
    /// |mu|^2.
    pub(super) square: f64,
    /// <mu, t> / |t|^2.
    pub(super) scale: f64,
    /// Between mu and t; none where noise hides mu.
    pub(super) cosine: Option<f64>,
}

impl<'a> Estimates<'a> {
    pub(super) fn new(target: &'a [f64]) -> Self {
        let (moments, along) = (Moments::new(target.len()), Moments::new(1));
        Self { target, moments, along, held: vec![], products: vec![] }
    }

    pub(super) fn add(&mut self, mut estimate: Vec<f64>) {
        self.moments.add(&estimate);
        self.along.add(&[dot(&estimate, self.target)]);
        if self.held.len() < HELD as usize {
            estimate.iter_mut().zip(self.target).for_each(|(x, t)| *x -= t);
            self.held.push(estimate);
            let last = &self.held[self.held.len() - 1];
            self.products.push(self.held.iter().map(|other| dot(other, last)).collect());
        }
    }

    /// Equation (4): tr(Sigma) and tr(Sigma^2) from those held, none of fewer than three.
    fn traces(&self) -> Option<(f64, f64)> {
        let n = self.held.len();
        let count = f64::from(u32::try_from(n).ok().filter(|&n| n > 2)?);
        let product = |i: usize, j: usize| self.products[i.max(j)][i.min(j)];
        let row = |i| (0..n).map(|j| product(i, j)).sum::<f64>() / count;
        let rows: Vec<f64> = (0..n).map(row).collect();
        let all = rows.iter().sum::<f64>() / count;
        let centred = |i: usize, j: usize| product(i, j) - rows[i] - rows[j] + all;
        let l = count - 1.0;
        let trace = (0..n).map(|i| centred(i, i)).sum::<f64>() / l;
        let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        let squares = pairs.map(|(i, j)| centred(i, j).powi(2)).sum::<f64>() / (l * l);
        let of_square = l * l / ((l + 2.0) * (l - 1.0)) * (squares - trace * trace / l);
        Some((trace, of_square.max(0.0)))
    }

    /// The statistics so far. The target is not 0.
    pub(super) fn spread(&self) -> Spread {
        let (n, variance) = (f64::from(self.moments.count), self.moments.variance());
        let mean = &self.moments.mean;
        let noise = self.moments.variance_of_mean();
        let apart: f64 = mean.iter().zip(self.target).map(|(m, t)| (m - t).powi(2)).sum();
        // tr(Sigma^2) is at most tr(Sigma)^2.
        let (trace, trace_of_square) = self.traces().unwrap_or((variance, variance * variance));
        // The square of the trace that was seen is too large by 2 tr(Sigma^2) / l on average.
        let l = f64::from(self.moments.count.min(HELD)) - 1.0;
        let directions = (trace * trace - 2.0 * trace_of_square / l) / trace_of_square;
        let bias_z = (noise > 0.0).then(|| {
            let most = f64::from(u32::try_from(mean.len()).unwrap_or(u32::MAX));
            let directions =
                if directions.is_finite() { directions.clamp(1.0, most) } else { most };
            normal(apart / noise, directions, directions * (n - 1.0))
        });
        let square = dot(mean, mean) - noise;
        let (along, target_square) = (self.along.mean[0], dot(self.target, self.target));
        let cosine = (square > 0.0).then(|| {
            let along_square = (along * along - self.along.variance_of_mean()).max(0.0);
            (along_square / (square * target_square)).sqrt().min(1.0).copysign(along)
        });
        Spread {
            variance,
            bias: apart - noise,
            bias_error: (2.0 * trace_of_square / (n * (n - 1.0).max(1.0))).sqrt(),
            bias_z,
            square,
            scale: along / target_square,
            cosine,
        }
    }
}

/// The standard normal number that is as rare as this one of the distribution F(a, b).
///
/// E. Paulson, "An approximate normalization of the analysis of variance distribution", Ann. Math. Statist. 13, 1942.
fn normal(f: f64, a: f64, b: f64) -> f64 {
    let (root, a, b) = (f.cbrt(), 2.0 / (9.0 * a), 2.0 / (9.0 * b));
    ((1.0 - b) * root - (1.0 - a)) / (b * root * root + a).sqrt()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Purpose, Seed};

    use super::super::row::SEEN;
    use super::*;

    const TARGET: [f64; 3] = [2.0, -1.0, 0.5];
    /// Half-widths of the noise in each direction.
    const WIDTHS: [f64; 3] = [3.0, 1.0, 0.5];

    /// n estimates: uniform noise around scale t + shift.
    fn spread(trial: u64, n: u32, scale: f64, shift: f64) -> Spread {
        let seed = Seed::new(3).child(Purpose::Sample, trial);
        let mut estimates = Estimates::new(&TARGET);
        for i in 0..n {
            let at = |j: u32| {
                let noise = WIDTHS[j as usize] * (2.0 * seed.uniform(i, j) - 1.0);
                scale * TARGET[j as usize] + shift + noise
            };
            estimates.add((0..3).map(at).collect());
        }
        estimates.spread()
    }

    fn average(of: impl Fn(u64) -> f64) -> f64 {
        (0u32..4000).map(|trial| of(u64::from(trial))).sum::<f64>() / 4000.0
    }

    /// A uniform number in -w .. w has the variance w^2 / 3.
    fn traces() -> (f64, f64) {
        let variances = WIDTHS.map(|w| w * w / 3.0);
        (variances.iter().sum(), variances.iter().map(|v| v * v).sum())
    }

    #[test]
    fn welford_gives_the_mean_and_the_variance_of_the_textbook() {
        let vectors = [[1e6 + 1.0, 4.0], [1e6 + 2.0, 4.0], [1e6 + 6.0, 1.0]];
        let mut moments = Moments::new(2);
        vectors.iter().for_each(|vector| moments.add(vector));
        // Deviations -2, -1, 3 and 1, 1, -2.
        assert!((moments.variance() - (14.0 + 6.0) / 2.0).abs() < 1e-9, "{moments:?}");
        assert_eq!(moments.mean, [1e6 + 3.0, 3.0]);
    }

    #[test]
    fn variance_and_squared_bias_are_right_on_average() {
        let (trace, _) = traces();
        let variance = average(|trial| spread(trial, 6, 1.0, 0.0).variance);
        assert!((variance / trace - 1.0).abs() < 0.03, "{variance} of {trace}");
        let (none, some) = (
            average(|trial| spread(trial, 6, 1.0, 0.0).bias),
            average(|trial| spread(trial, 6, 1.0, 0.5).bias),
        );
        assert!(none.abs() < 0.03, "{none}");
        assert!((some - 0.75).abs() < 0.06, "three times 0.5 squared: {some}");
    }

    #[test]
    fn the_error_of_the_bias_is_its_deviation_without_one() {
        let (_, trace_of_square) = traces();
        let expected = 2.0 * trace_of_square / (8.0 * 7.0);
        let seen = average(|trial| spread(trial, 8, 1.0, 0.0).bias.powi(2));
        let computed = average(|trial| spread(trial, 8, 1.0, 0.0).bias_error.powi(2));
        assert!((seen / expected - 1.0).abs() < 0.1, "{seen} of {expected}");
        // (4) is right for normal noise; uniform noise has shorter tails.
        assert!((computed / expected - 1.0).abs() < 0.15, "{computed} of {expected}");
    }

    #[test]
    fn the_normal_number_is_as_rare_as_the_textbook_s_f() {
        // Upper points of F: 5 % of (1, 11) and (5, 55), 0.1 % of (1, 11) and (10, 110).
        for (f, a, b, z) in [
            (4.844, 1.0, 11.0, 1.645),
            (2.383, 5.0, 55.0, 1.645),
            (19.69, 1.0, 11.0, 3.090),
            (3.245, 10.0, 110.0, 3.090),
        ] {
            assert!((normal(f, a, b) - z).abs() < 0.06, "F({a}, {b}): {}", normal(f, a, b));
        }
    }

    /// Shares of 4000 trials of 12 estimates whose z is above the bar: the noise of `directions`
    /// independent directions is uniform, or skewed like the square of a uniform number.
    fn found(directions: u32, shift: f64, is_skewed: bool) -> f64 {
        let target = vec![1.0; directions as usize];
        average(|trial| {
            let seed = Seed::new(5).child(Purpose::Sample, trial);
            let mut estimates = Estimates::new(&target);
            for i in 0..12 {
                let noise = |j: u32| match seed.uniform(i, j) {
                    u if is_skewed => u * u - 1.0 / 3.0,
                    u => u - 0.5,
                };
                estimates.add((0..directions).map(|j| 1.0 + shift + noise(j)).collect());
            }
            f64::from(u8::from(estimates.spread().bias_z.unwrap() > SEEN))
        })
    }

    #[test]
    fn twelve_estimates_without_bias_show_none() {
        for directions in [1, 2, 5, 40] {
            for is_skewed in [false, true] {
                let share = found(directions, 0.0, is_skewed);
                assert!(share <= 0.0005, "{directions} {is_skewed}: {share}");
            }
        }
    }

    #[test]
    fn twelve_estimates_with_a_bias_show_it() {
        for directions in [1, 2, 5, 40] {
            // Three deviations of the noise where one direction varies; with 40, 1.2 of each.
            let shift = 3.0 / (12.0 * f64::from(directions).sqrt()).sqrt();
            let share = found(directions, shift, false);
            assert!(share > 0.9, "{directions}: {share}");
        }
    }

    #[test]
    fn another_scale_is_a_bias_but_no_other_direction() {
        let found = spread(1, 4000, 0.25, 0.0);
        assert!((found.scale - 0.25).abs() < 0.02, "{found:?}");
        assert!(found.cosine.unwrap() > 0.98, "{found:?}");
        assert!(found.bias > 10.0 * found.bias_error, "{found:?}");
        assert!(found.bias_z.unwrap() > SEEN, "{found:?}");
        assert!((spread(1, 4000, -1.0, 0.0).cosine.unwrap() + 1.0).abs() < 0.02);
    }

    #[test]
    fn estimates_without_noise_have_none() {
        let mut estimates = Estimates::new(&TARGET);
        (0..5).for_each(|_| estimates.add(TARGET.to_vec()));
        let found = estimates.spread();
        assert_eq!((found.variance, found.bias, found.bias_error), (0.0, 0.0, 0.0));
        assert_eq!(found.bias_z, None);
        assert!((found.cosine.unwrap() - 1.0).abs() < 1e-12 && found.scale == 1.0, "{found:?}");
    }
}
