//! Which steps of which trajectories a Monte Carlo gradient looks at.
//!
//! Low-discrepancy sampling (Sahoo et al., arXiv 2409.02908, appendix G.2): with N = rows * k, a
//! random permutation pi of 0..N and U_n uniform, `u_n = (pi(n) + U_n) / N`. Each u_n alone is
//! uniform, so every estimate stays unbiased; together they cover [0, 1) evenly.

use agrpo_spec::{Purpose, Seed};

/// k timesteps and their importance weights for each of R rows, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Timesteps {
    /// Samples of each row.
    pub k: usize,
    /// R x k: the step, below the row's horizon.
    pub steps: Vec<i64>,
    /// R x k: 1 / (horizon * probability); 1 for uniform sampling.
    pub weights: Vec<f64>,
}

/// Uniform steps t = floor(u * horizon) below each row's horizon (at least 1).
pub fn uniform(horizons: &[u32], k: usize, stratified: bool, seed: Seed) -> Timesteps {
    let n = u32::try_from(horizons.len() * k).expect("a shard is small");
    let strata = stratified.then(|| seed.child(Purpose::Permutation, 0).permutation(n));
    let mut steps = Vec::with_capacity(n as usize);
    for (row, &horizon) in (0u32..).zip(horizons) {
        for sample in 0..u32::try_from(k).expect("k is small") {
            let cell = row * u32::try_from(k).expect("k is small") + sample;
            let jitter = seed.child(Purpose::Timestep, 0).uniform(row, sample);
            let u = match &strata {
                Some(order) => (f64::from(order[cell as usize]) + jitter) / f64::from(n),
                None => jitter,
            };
            #[expect(clippy::cast_possible_truncation, reason = "below the horizon")]
            let step = (u * f64::from(horizon)) as i64;
            // (n - 1 + U) / n can round up to 1.
            steps.push(step.min(i64::from(horizon) - 1));
        }
    }
    Timesteps { k, weights: vec![1.0; steps.len()], steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_cover_the_horizon_evenly() {
        let horizons = [8; 16];
        let drawn = uniform(&horizons, 4, true, Seed::new(7));
        let mut counts = [0; 8];
        drawn.steps.iter().for_each(|&t| counts[usize::try_from(t).unwrap()] += 1);
        assert_eq!(counts, [8; 8], "64 strata over 8 steps");
    }

    #[test]
    fn every_step_is_equally_likely_without_strata_too() {
        for stratified in [false, true] {
            let mut counts = [0u32; 5];
            for n in 0..2000 {
                let drawn = uniform(&[5, 3], 2, stratified, Seed::new(n));
                drawn.steps[..2].iter().for_each(|&t| counts[usize::try_from(t).unwrap()] += 1);
                assert!(drawn.steps[2..].iter().all(|&t| t < 3));
            }
            for count in counts {
                assert!((i64::from(count) - 800).abs() < 4 * 26, "{counts:?}");
            }
        }
    }
}
