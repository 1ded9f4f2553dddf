//! Means of many estimates against what they estimate, within four standard errors: over timesteps, for
//! every way to draw them, and over trajectories that the sampler itself drew.
//!
//! Vectors are compared by their products with a few random directions. All seeds are fixed.

use agrpo_spec::Purpose;

use super::enumeration::{Enumeration, reward};
use super::*;
use crate::estimator::timesteps::{Draw, Steps, draw};
use crate::sampler::{Row, sample};
use crate::trajectories::Trajectories;

const DIRECTIONS: usize = 6;
type Projections = [f64; DIRECTIONS];

/// Products of a vector with fixed random directions.
fn project(vector: &Tensor) -> Projections {
    let cells = u32::try_from(vector.numel()).unwrap();
    std::array::from_fn(|n| {
        let seed = Seed::new(31).child(Purpose::Weights, n as u64);
        let direction: Vec<f64> = (0..cells).map(|cell| seed.uniform(cell, 0) - 0.5).collect();
        vector.dot(&Tensor::from_slice(&direction)).double_value(&[])
    })
}

/// How many standard errors the mean of independent estimates is from `exact`, in the direction where it
/// is furthest.
fn standard_errors(estimates: &[Projections], exact: &Projections) -> f64 {
    let n = count(estimates.len());
    let of = |direction: usize| {
        let values = || estimates.iter().map(|estimate| estimate[direction]);
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
        (mean - exact[direction]).abs() / (variance / n).sqrt()
    };
    (0..DIRECTIONS).map(of).fold(0.0, f64::max)
}

fn sampled(policy: &Policy, sampler: &Sampler, rows: u64) -> Trajectories {
    let of = |n| Row { prompt: PROMPT.into(), seed: Seed::new(41).child(Purpose::Sample, n) };
    sample(policy, &(0..rows).map(of).collect::<Vec<_>>(), sampler, 256, &Threads::one()).unwrap()
}

/// The gradient that an estimate of these draws ascends.
fn gradient(batch: &Batch<'_>, policy: &Policy, draws: Vec<Draw>) -> Tensor {
    let config = config(EstimatorKind::Agrpo);
    let estimator = with_draws(batch, &config, draws);
    let policies = Policies { policy, behaviour: None, reference: None };
    -gradient_of(&estimator, &policies, &config)
}

/// Every strata, weighting, k and uniform share. The gradient is linear in the draws' weights, so each
/// step's is computed once, and thousands of draws are sums over them; that the sum is what
/// `accumulate` gives is checked for one draw of each.
#[test]
fn drawn_timesteps_estimate_the_sum_over_all() {
    let policy = policy(4);
    let sampler = sampler(4, 2, 4, PositionRule::Random);
    let trajectories = sampled(&policy, &sampler, 6);
    let stopped = (0..6).filter(|&row| trajectories.sampled_steps(row) < 4).count();
    assert!((1..6).contains(&stopped), "rows of different lengths: {stopped}");
    let worths = [0.7, -0.4, 1.1, -0.9, 0.3, -0.8];
    let worths = worths.map(|advantage| Worth { advantage, counted: true });
    let batch = Batch::new(&trajectories, &worths, 6, &sampler, policy.config()).unwrap();
    let batch = batch.without_records();
    let rows: Vec<usize> = (0..6).collect();
    let of_step =
        |row, step| project(&gradient(&batch, &policy, vec![Draw { row, step, weight: 1.0 }]));
    let steps = |row| 0..trajectories.sampled_steps(row);
    let parts: Vec<Vec<Projections>> =
        rows.iter().map(|&row| steps(row).map(|step| of_step(row, step)).collect()).collect();
    let sum = |draws: &[Draw]| -> Projections {
        let part = |draw: &Draw, n: usize| draw.weight * parts[draw.row][draw.step as usize][n];
        std::array::from_fn(|n| draws.iter().map(|draw| part(draw, n)).sum())
    };
    let exact = sum(&draw(&batch, &rows, &config(EstimatorKind::Agrpo), Seed::new(0)));
    for strata in [Strata::None, Strata::Shard, Strata::Completion, Strata::Group] {
        for (step_weights, uniform_share) in
            [(StepWeights::Uniform, 0.0), (StepWeights::Entropy, 0.0), (StepWeights::Entropy, 0.2)]
        {
            for k in [1, 3] {
                let config = EstimatorConfig {
                    k: Samples::Count(k),
                    strata,
                    step_weights,
                    uniform_share: real(uniform_share),
                    ..config(EstimatorKind::Agrpo)
                };
                let draws = |n| draw(&batch, &rows, &config, Seed::new(n));
                let what = format!("{strata:?} {step_weights:?} {uniform_share} k {k}");
                let estimates: Vec<_> = (0..3000).map(|n| sum(&draws(n))).collect();
                let error = standard_errors(&estimates, &exact);
                assert!(error < 4.0, "{what}: {error} standard errors from exact");
                let (ours, linear) = (project(&gradient(&batch, &policy, draws(1))), estimates[1]);
                let apart = ours.iter().zip(linear).map(|(a, b)| (a - b).abs()).sum::<f64>();
                assert!(apart < 1e-10, "{what}: {apart}");
            }
        }
    }
}

/// Steps are drawn as often as their probability says, and a horizon is never left.
#[test]
fn steps_are_drawn_as_often_as_their_probability_says() {
    let policy = policy(5);
    let sampler = sampler(4, 4, 4, PositionRule::LowConfidence);
    let trajectories = sampled(&policy, &sampler, 6);
    let worths = [Worth { advantage: 1.0, counted: true }; 6];
    let batch = Batch::new(&trajectories, &worths, 6, &sampler, policy.config()).unwrap();
    let rows: Vec<usize> = (0..6).collect();
    for strata in [Strata::None, Strata::Shard, Strata::Completion, Strata::Group] {
        let config = EstimatorConfig {
            k: Samples::Count(2),
            strata,
            step_weights: StepWeights::Entropy,
            horizon: Horizon::Effective,
            ..config(EstimatorKind::Agrpo)
        };
        let mut drawn = [[0.0; 4]; 6];
        let draws = (0..3000).flat_map(|n| draw(&batch, &rows, &config, Seed::new(n)));
        draws.for_each(|draw| drawn[draw.row][draw.step as usize] += 1.0);
        for row in rows.iter().copied().filter(|&row| batch.horizon(row) > 0) {
            let steps = Steps::of(&batch, row, &config);
            for step in 0..4 {
                let q = if step < batch.horizon(row) {
                    steps.probabilities[step as usize]
                } else {
                    0.0
                };
                // Strata only lower the binomial deviation.
                let error = (drawn[row][step as usize] - 6000.0 * q).abs();
                assert!(error <= 4.0 * (6000.0 * q * (1.0 - q)).sqrt() + 1e-9, "{row} {step} {q}");
            }
        }
    }
}

/// The whole chain in the order that is hardest to get right: trajectories drawn by the sampler, a few
/// steps of each drawn, and the gradient of the expected reward.
#[test]
fn sampled_trajectories_estimate_the_gradient_of_the_expected_reward() {
    let policy = policy(1);
    let sampler = sampler(4, 4, 4, PositionRule::LowConfidence);
    let all = Enumeration::new(&policy, &sampler);
    let exact = project(&(all.exact_gradient(&policy, 0.0) / 4.0));
    let trajectories = sampled(&policy, &sampler, 32_768);
    let worth = |row| Worth {
        advantage: reward(trajectories.completion(row)) - all.mean_reward(),
        counted: true,
    };
    let worths: Vec<Worth> = (0..trajectories.rows).map(worth).collect();
    let batch = Batch::new(&trajectories, &worths, 64, &sampler, policy.config()).unwrap();
    let batch = batch.without_records();
    let estimates = |position_gradient| -> Vec<Projections> {
        let config = EstimatorConfig {
            k: Samples::Count(2),
            strata: Strata::Completion,
            step_weights: StepWeights::Entropy,
            uniform_share: real(0.2),
            position_gradient,
            ..config(EstimatorKind::Agrpo)
        };
        let of_rows = |first: usize| {
            let rows: Vec<usize> = (first..first + 64).collect();
            let mut draws = draw(&batch, &rows, &config, Seed::new(first as u64));
            draws.iter_mut().for_each(|draw| draw.weight /= 64.0);
            let estimator = with_draws(&batch, &config, draws);
            let policies = Policies { policy: &policy, behaviour: None, reference: None };
            project(&-gradient_of(&estimator, &policies, &config))
        };
        (0..32_768).step_by(64).map(of_rows).collect()
    };
    let [with, without] = [true, false].map(|on| standard_errors(&estimates(on), &exact));
    assert!(with < 4.0, "corrected, {with} standard errors from exact");
    assert!(without > 4.0, "enough samples to see what the correction corrects: {without}");
}
