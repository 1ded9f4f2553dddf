//! Unbiased: the expectation of an estimate over all trajectories is the gradient of the expected reward,
//! wherever an estimator says so. Where it does not, see `biased.rs`.

use super::enumeration::Enumeration;
use super::*;
use crate::estimator::timesteps::{Draw, Steps};

/// Relative error that f64 leaves.
const EXACT: f64 = 1e-10;

/// The samplers of four tokens: all at once in one block, two a step, two blocks.
fn samplers(position: PositionRule) -> [Sampler; 4] {
    let mut all =
        [(4, 4), (4, 2), (2, 4), (2, 2)].map(|(block, steps)| sampler(4, block, steps, position));
    // Tempering is the policy's, not the estimator's.
    all[2].temperature = real(0.7);
    all
}

fn describe(sampler: &Sampler) -> String {
    let Sampler { position, block_tokens, steps, temperature, .. } = sampler;
    format!("{position:?}, blocks of {block_tokens}, {steps} steps, temperature {temperature}")
}

#[test]
fn the_enumeration_is_a_distribution_and_a_constant_reward_has_no_gradient() {
    let policy = policy(1);
    for position in PositionRule::ALL {
        for sampler in samplers(position) {
            let all = Enumeration::new(&policy, &sampler);
            let total = all.probability_R.sum(Kind::Double).double_value(&[]);
            assert!((total - 1.0).abs() < 1e-12, "{}: {total}", describe(&sampler));
            let (plain, shifted) =
                (all.exact_gradient(&policy, 0.0), all.exact_gradient(&policy, 0.4));
            assert!(relative(&shifted, &plain) < EXACT, "{}", describe(&sampler));
        }
    }
}

/// AGRPO in every order that it claims, with any baseline: the gradient over T.
#[test]
fn agrpo_s_expectation_is_the_gradient() {
    let policy = policy(1);
    for position in PositionRule::ALL {
        for sampler in samplers(position) {
            let all = Enumeration::new(&policy, &sampler);
            let exact = all.exact_gradient(&policy, 0.0) / f64::from(sampler.steps);
            let position_gradient = position == PositionRule::LowConfidence;
            let config = EstimatorConfig { position_gradient, ..config(EstimatorKind::Agrpo) };
            for baseline in [0.0, all.mean_reward(), 0.4] {
                let error = relative(&all.expected_estimate(&policy, &config, baseline), &exact);
                assert!(error < EXACT, "{}, baseline {baseline}: {error}", describe(&sampler));
            }
        }
    }
}

/// Every family under its own conventions: blocks counted from the prompt, which here end after one token or after two, steps
/// on a time grid, one pass for a row, experts.
#[test]
fn agrpo_s_expectation_is_the_gradient_in_every_family() {
    for family in Family::ALL {
        let shapes = match family {
            Family::Llama => [(1, 4), (1, 4)],
            Family::Sdar => [(2, 4), (3, 3)],
            _ => [(4, 4), (2, 4)],
        };
        for (block, steps) in shapes {
            let policy = drawn_of(family, 1, EOS, block).to_double();
            for position in [PositionRule::Random, PositionRule::LowConfidence] {
                let sampler = sampler(4, block, steps, position);
                let all = Enumeration::new(&policy, &sampler);
                let total = all.probability_R.sum(Kind::Double).double_value(&[]);
                assert!((total - 1.0).abs() < 1e-12, "{family:?}: {total}");
                let position_gradient = position == PositionRule::LowConfidence;
                let exact = all.exact_gradient(&policy, 0.0) / f64::from(steps);
                let config = EstimatorConfig { position_gradient, ..config(EstimatorKind::Agrpo) };
                let error = relative(&all.expected_estimate(&policy, &config, 0.2), &exact);
                assert!(error < EXACT, "{family:?}, {}: {error}", describe(&sampler));
            }
        }
    }
}

/// Drawn steps: each with the chance q and the weight 1 / (N q), which have to cancel.
#[test]
fn the_expectation_over_drawn_steps_is_the_gradient() {
    let policy = policy(2);
    let sampler = sampler(4, 2, 4, PositionRule::Random);
    let all = Enumeration::new(&policy, &sampler);
    let exact = all.exact_gradient(&policy, 0.0) / 4.0;
    for (step_weights, uniform_share) in
        [(StepWeights::Uniform, 0.0), (StepWeights::Entropy, 0.0), (StepWeights::Entropy, 0.2)]
    {
        let uniform_share = real(uniform_share);
        let config =
            EstimatorConfig { step_weights, uniform_share, ..config(EstimatorKind::Agrpo) };
        let worths = all.worths(0.3);
        let batch = all.batch(&policy, &worths);
        let of_row = |row| {
            let steps = Steps::of(&batch, row, &config);
            let draw = |step| {
                let weight = steps.probabilities[step as usize] * steps.weight(step, 1)
                    / batch.completions();
                Draw { row, step, weight }
            };
            let last = u32::try_from(steps.probabilities.len()).unwrap();
            (0..last).map(draw).collect::<Vec<_>>()
        };
        let draws = (0..batch.rows()).flat_map(of_row).collect();
        let policies = Policies { policy: &policy, behaviour: None, reference: None };
        let estimator = with_draws(&batch, &config, draws);
        let error = relative(&-gradient_of(&estimator, &policies, &config), &exact);
        assert!(error < EXACT, "{step_weights:?}, {uniform_share}: {error}");
    }
}

/// In autoregressive order a completion has one trajectory; JustGRPO's loss divides by the completions
/// that have an advantage, which here are all.
#[test]
fn autoregressive_order_is_exact_for_both_kinds() {
    let policy = policy(3);
    let sampler = sampler(4, 1, 4, PositionRule::Random);
    let all = Enumeration::new(&policy, &sampler);
    let full = all.trajectories.unmask_steps.iter().filter(|&&step| step >= 0).count();
    assert!(full < all.trajectories.unmask_steps.len(), "some stop early");
    let exact = all.exact_gradient(&policy, 0.0) / 4.0;
    for kind in [EstimatorKind::Agrpo, EstimatorKind::ArGrpo] {
        let error = relative(&all.expected_estimate(&policy, &config(kind), 0.0), &exact);
        assert!(error < EXACT, "{kind}: {error}");
    }
}

/// Positions that see nothing of one another have equal distributions, whatever the other weights are:
/// every step then has ties, and which position wins is decided by the rule for ties alone.
#[test]
fn ties_in_low_confidence_order_go_to_the_left() {
    let policy = policy(4);
    set_weights(&policy, "attn_out", Tensor::zeros_like);
    // The gradient exists along weights that keep the ties; attn_out does not.
    let (mut kept, mut offset) = (vec![], 0);
    for (name, weight) in policy.parameters() {
        let cells = i64::try_from(weight.numel()).unwrap();
        if !name.contains("attn_out") {
            kept.extend(offset..offset + cells);
        }
        offset += cells;
    }
    let kept = Tensor::from_slice(&kept);
    for steps in [4, 2] {
        let sampler = sampler(4, 4, steps, PositionRule::LowConfidence);
        let all = Enumeration::new(&policy, &sampler);
        let config = EstimatorConfig { position_gradient: true, ..config(EstimatorKind::Agrpo) };
        let estimate = all.expected_estimate(&policy, &config, 0.0).index_select(0, &kept);
        let exact = all.exact_gradient(&policy, 0.0).index_select(0, &kept) / f64::from(steps);
        let error = relative(&estimate, &exact);
        assert!(error < EXACT, "{steps} steps: {error}");
        // Without ties, positions that are alike would come first equally often.
        let first = |at: usize| all.chance(|row| all.trajectories.steps(row)[at] == 0);
        assert!(first(0) > first(3) + 0.1, "{} {}", first(0), first(3));
    }
}

/// Merged steps with a segment a step are AGRPO's sum, where the mask has no probability and no
/// completion ends: both divide by constants, 4 tokens and 4 steps (or 2, of 2 tokens each).
#[test]
fn a_segment_a_step_is_exact_up_to_its_scale() {
    let policy = policy_of_content(1);
    for steps in [4, 2] {
        let sampler = sampler(4, 4, steps, PositionRule::Random);
        let all = Enumeration::new(&policy, &sampler);
        let k = Samples::Count(steps);
        let config = EstimatorConfig { k, ..config(EstimatorKind::MergedStep) };
        let estimate = all.expected_estimate(&policy, &config, 0.0);
        let error = relative(&estimate, &(all.exact_gradient(&policy, 0.0) / 4.0));
        assert!(error < EXACT, "{steps} steps: {error}");
    }
}

/// After an update a position may hold no token that is less probable than the winner's: log 0, which
/// must leave the other terms' gradients alone.
#[test]
fn a_position_that_could_no_longer_have_lost_leaves_a_gradient() {
    let policy = policy(6);
    let state: Vec<i64> = PROMPT.into_iter().chain([MASK; 4]).collect();
    let support = || Support::AllBut(MASK);
    let read =
        |position, event| Read { state: 0, position, event, support: support(), coefficient: 1.0 };
    let pass = |reads: Vec<Read>| {
        let factor = |read| Factor {
            reads: vec![read],
            old: None,
            advantage: 1.0,
            weight: 1.0,
            has_kl: false,
        };
        let factors = reads.into_iter().map(factor).collect();
        let mut pass = Pass::default();
        pass.push(Unit { states: vec![state.clone()], factors });
        pass
    };
    let cells: Vec<_> = (2..6).flat_map(|at| (0..3).map(move |token| (at, token))).collect();
    let tokens = cells.iter().map(|&(at, token)| read(at, Event::Token(token))).collect();
    let seen = pass(tokens).observe(&policy, 1.0).unwrap();
    let least = (0..12).min_by(|&a, &b| seen[a].0.total_cmp(&seen[b].0)).unwrap();
    let (winner, token) = cells[least];
    let loser = if winner == 2 { 3 } else { 2 };
    let lost = read(loser, Event::Loses(vec![(winner, token)]));
    let policies = Policies { policy: &policy, behaviour: None, reference: None };
    policy.require_grad();
    let surrogate = Surrogate::untempered(&config(EstimatorKind::Agrpo));
    let pass = pass(vec![read(winner, Event::Token(token)), lost]);
    pass.backward(&policies, &surrogate, false).unwrap();
    let found = norm(&take_gradient(&policy));
    assert!(found.is_finite() && found > 0.0, "{found}");
}
