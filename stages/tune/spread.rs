//! What repeated estimates of one vector tell: how much they vary, and how far off their mean is.
//!
//! Estimates x_1 .. x_n are independent and of one distribution with mean mu and covariance Sigma; the
//! target t is exact. Vectors are seen once: held are the mean, and the last few for `tr(Sigma^2)`.
//! ```text
//! m_i = m_(i-1) + (x_i - m_(i-1)) / i,   S_i = S_(i-1) + <x_i - m_(i-1), x_i - m_i>              (1)
//! variance  s2 = S_n / (n - 1), which has the expectation tr(Sigma)
//! bias      b2 = |m_n - t|^2 - s2 / n, which has the expectation |mu - t|^2                      (2)
//! its error, where mu = t:   sqrt(2 tr(Sigma^2) / (n (n - 1)))                                   (3)
//! tr(Sigma^2): mean of <d_j, d_(j+1)>^2 / 4 over the differences d_j = x_(2j-1) - x_(2j)
//! cosine    <mu, t> / (|mu| |t|) from <m, t>^2 - s2(<x, t>) / n and |m|^2 - s2 / n
//! ```
//! (1) B. P. Welford, "Note on a method for calculating corrected sums of squares and products",
//! Technometrics 4, 1962, with scalar products for products. (2), (3) the sum over pairs of
//! `<x_i - t, x_j - t>`, and its variance: S. X. Chen and Y.-L. Qin, "A two-sample test for
//! high-dimensional data with applications to gene-set testing", Ann. Statist. 38, 2010, sec. 2.
//! No estimate is drawn here, and none is judged.

/// Running mean of vectors, and the sum of their squared distances from it.
#[derive(Debug)]
pub(super) struct Moments {
    count: u32,
    mean: Vec<f64>,
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

    /// The mean.
    pub(super) fn into_mean(self) -> Vec<f64> {
        self.mean
    }
}

/// Estimates of a target, one at a time.
#[derive(Debug)]
pub(super) struct Estimates<'a> {
    target: &'a [f64],
    moments: Moments,
    /// Of <x, t>.
    along: Moments,
    /// x_(2j-1), until x_2j comes.
    odd: Option<Vec<f64>>,
    /// d_j, until d_(j+1) comes.
    difference: Option<Vec<f64>>,
    /// Sum and number of <d_j, d_(j+1)>^2 / 4.
    crossed: (f64, u32),
}

/// What they tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// tr(Sigma).
    pub(super) variance: f64,
    /// |mu - t|^2; below 0 where noise is larger than bias.
    pub(super) bias: f64,
    /// The bias's standard error where there is none.
    pub(super) bias_error: f64,
    /// |mu|^2.
    pub(super) square: f64,
    /// <mu, t> / |t|^2.
    pub(super) scale: f64,
    /// Between mu and t; none where noise hides mu.
    pub(super) cosine: Option<f64>,
}

impl<'a> Estimates<'a> {
    /// None yet.
    pub(super) fn new(target: &'a [f64]) -> Self {
        let (moments, along) = (Moments::new(target.len()), Moments::new(1));
        Self { target, moments, along, odd: None, difference: None, crossed: (0.0, 0) }
    }

    /// Another one.
    pub(super) fn add(&mut self, estimate: Vec<f64>) {
        self.moments.add(&estimate);
        self.along.add(&[dot(&estimate, self.target)]);
        let Some(odd) = self.odd.take() else {
            self.odd = Some(estimate);
            return;
        };
        let difference: Vec<f64> = odd.iter().zip(&estimate).map(|(a, b)| a - b).collect();
        if let Some(last) = &self.difference {
            self.crossed.0 += dot(last, &difference).powi(2) / 4.0;
            self.crossed.1 += 1;
        }
        self.difference = Some(difference);
    }

    /// What they tell. The target is not 0.
    pub(super) fn spread(&self) -> Spread {
        let (n, variance) = (f64::from(self.moments.count), self.moments.variance());
        let mean = &self.moments.mean;
        let noise = self.moments.variance_of_mean();
        let apart: f64 = mean.iter().zip(self.target).map(|(m, t)| (m - t).powi(2)).sum();
        // tr(Sigma^2) is at most tr(Sigma)^2.
        let trace_of_square = match self.crossed {
            (_, 0) => variance * variance,
            (sum, pairs) => sum / f64::from(pairs),
        };
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
            square,
            scale: along / target_square,
            cosine,
        }
    }
}

/// The scalar product.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Purpose, Seed};

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
        assert_eq!(moments.into_mean(), [1e6 + 3.0, 3.0]);
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
        let told = average(|trial| spread(trial, 8, 1.0, 0.0).bias_error.powi(2));
        assert!((seen / expected - 1.0).abs() < 0.1, "{seen} of {expected}");
        assert!((told / expected - 1.0).abs() < 0.1, "{told} of {expected}");
    }

    #[test]
    fn another_scale_is_a_bias_but_no_other_direction() {
        let found = spread(1, 4000, 0.25, 0.0);
        assert!((found.scale - 0.25).abs() < 0.02, "{found:?}");
        assert!(found.cosine.unwrap() > 0.98, "{found:?}");
        assert!(found.bias > 10.0 * found.bias_error, "{found:?}");
        assert!((spread(1, 4000, -1.0, 0.0).cosine.unwrap() + 1.0).abs() < 0.02);
    }

    #[test]
    fn estimates_without_noise_have_none() {
        let mut estimates = Estimates::new(&TARGET);
        (0..5).for_each(|_| estimates.add(TARGET.to_vec()));
        let found = estimates.spread();
        assert_eq!((found.variance, found.bias, found.bias_error), (0.0, 0.0, 0.0));
        assert!((found.cosine.unwrap() - 1.0).abs() < 1e-12 && found.scale == 1.0, "{found:?}");
    }
}
