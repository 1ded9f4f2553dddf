//! By how much an estimate is wrong where it does not claim to be exact: its expectation over all
//! trajectories against the gradient of the expected reward, with the expected reward as the baseline.
//!
//! Toys exaggerate: the biases of a policy of millions of weights are smaller. The tests assert that these biases
//! exceed all noise; `cargo test -- --show-output` prints how large they are.

#![expect(clippy::print_stdout, reason = "the size of a bias is what these tests find out")]

use super::enumeration::Enumeration;
use super::*;

/// Prints how far an expectation is from the gradient, as it is and at its best scale; the latter.
fn bias(what: &str, expected: &Tensor, exact: &Tensor) -> f64 {
    let (plain, rescaled) = (relative(expected, exact), relative_rescaled(expected, exact));
    println!("{what}: {plain:.3} of the gradient, {rescaled:.3} at its best scale");
    rescaled
}

#[test]
fn low_confidence_order_without_its_correction() {
    let policy = policy(1);
    for (block, steps) in [(4, 4), (4, 2), (2, 4), (2, 2)] {
        let sampler = sampler(4, block, steps, PositionRule::LowConfidence);
        let all = Enumeration::new(&policy, &sampler);
        let exact = all.exact_gradient(&policy, 0.0) / f64::from(steps);
        let config = config(EstimatorKind::Agrpo);
        let estimate = all.expected_estimate(&policy, &config, all.mean_reward());
        let what = format!("no position gradient, blocks of {block}, {steps} steps");
        let bias = bias(&what, &estimate, &exact);
        // Two tokens a step of a block of two: no position is passed over.
        assert!(if (block, steps) == (2, 2) { bias < 1e-10 } else { bias > 0.01 }, "{bias}");
    }
}

#[test]
fn an_effective_horizon_where_completions_end() {
    for (policy, ends) in [(policy(1), true), (policy_of_content(1), false)] {
        for block in [4, 2, 1] {
            let sampler = sampler(4, block, 4, PositionRule::Random);
            let all = Enumeration::new(&policy, &sampler);
            let exact = all.exact_gradient(&policy, 0.0) / 4.0;
            let horizon = Horizon::Effective;
            let config = EstimatorConfig { horizon, ..config(EstimatorKind::Agrpo) };
            let estimate = all.expected_estimate(&policy, &config, all.mean_reward());
            let what = format!("effective horizon, blocks of {block}, ends: {ends}");
            let bias = bias(&what, &estimate, &exact);
            assert!(if ends { bias > 0.01 } else { bias < 1e-10 }, "{bias}");
        }
    }
}

/// diffu-GRPO, and fewer segments than there are steps: tokens are read from states that are not those
/// they were drawn from.
#[test]
fn states_that_no_token_was_drawn_from() {
    let policy = policy_of_content(1);
    let sampler = sampler(4, 4, 4, PositionRule::Random);
    let all = Enumeration::new(&policy, &sampler);
    let exact = all.exact_gradient(&policy, 0.0) / 4.0;
    let (diffu, merged) = (EstimatorKind::DiffuGrpo, EstimatorKind::MergedStep);
    for (kind, k) in [(diffu, 1), (merged, 1), (merged, 2), (merged, 3)] {
        let config = EstimatorConfig { k: Samples::Count(k), ..config(kind) };
        let estimate = all.expected_estimate(&policy, &config, all.mean_reward());
        let bias = bias(&format!("{kind}, k = {k}"), &estimate, &exact);
        assert!(bias > 0.01, "{bias}");
    }
}

/// Kinds that read the whole vocabulary also differentiate the mask's share of it, which the sampler
/// never draws: merged steps with a segment a step are exact but for that.
#[test]
fn a_distribution_that_holds_the_mask() {
    let policy = drawn(1, i64::MAX).to_double();
    let sampler = sampler(4, 4, 4, PositionRule::Random);
    let all = Enumeration::new(&policy, &sampler);
    let exact = all.exact_gradient(&policy, 0.0) / 4.0;
    let k = Samples::Count(4);
    let config = EstimatorConfig { k, ..config(EstimatorKind::MergedStep) };
    let estimate = all.expected_estimate(&policy, &config, all.mean_reward());
    let bias = bias("merged-step, k = T, the mask among the tokens", &estimate, &exact);
    assert!(bias > 0.01, "{bias}");
}

/// coupled-GRPO's masks are drawn, so its expectation is estimated twice, from two sets of them. For
/// independent a and b with one mean, <a - g, b - g> is |mean - g|^2 on average, without their noise.
#[test]
fn coupled_masks() {
    let policy = policy_of_content(1);
    let sampler = sampler(3, 3, 3, PositionRule::Random);
    let all = Enumeration::new(&policy, &sampler);
    let exact = all.exact_gradient(&policy, 0.0) / 3.0;
    let k = Samples::Count(200);
    let config = EstimatorConfig { k, ..config(EstimatorKind::CoupledGrpo) };
    let baseline = all.mean_reward();
    let [a, b] = [1, 2].map(|n| all.expected_estimate_of(&policy, &config, baseline, Seed::new(n)));
    let product = |a: &Tensor, b: &Tensor| a.dot(b).double_value(&[]);
    let noise = norm(&(&a - &b)) / norm(&exact);
    let scale = (product(&a, &exact) + product(&b, &exact)) / 2.0 / product(&a, &b);
    let [plain, rescaled] = [1.0, scale].map(|scale| {
        let square = product(&(&a * scale - &exact), &(&b * scale - &exact));
        square.max(0.0).sqrt() / norm(&exact)
    });
    println!("coupled-grpo: {plain:.3} of the gradient, {rescaled:.3} at its best scale");
    assert!(rescaled > 0.01 && rescaled > 3.0 * noise * scale, "{rescaled}, noise {noise}");
}
