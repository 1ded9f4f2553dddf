//! What the loss of kinds that train on tokens is a mean over, for any division of an iteration into shards.

use agrpo_spec::TokenMean;

use super::*;
use crate::trajectories::Trajectories;

const GROUP: usize = 2;
const TOKENS: usize = 4;

/// Three prompts, two completions each: of 4 and 1 tokens, of 2 and 4, of 3 and 3.
fn completions() -> Vec<[i64; TOKENS]> {
    let (a, b) = (0, 1);
    vec![
        [a, b, b, a],
        [EOS, EOS, EOS, EOS],
        [b, EOS, EOS, EOS],
        [a, a, b, b],
        [b, b, EOS, EOS],
        [a, b, EOS, EOS],
    ]
}

fn trajectories(rows: &[[i64; TOKENS]]) -> Trajectories {
    let cells = rows.len() * TOKENS;
    Trajectories {
        policy: None,
        rows: rows.len(),
        prompt_len: PROMPT.len(),
        completion_len: TOKENS,
        prompt_ids: PROMPT.repeat(rows.len()),
        completion_ids: rows.concat(),
        unmask_steps: (0..cells).map(|cell| length(cell % TOKENS)).collect(),
        token_logps: vec![0.0; cells],
        token_entropies: vec![0.0; cells],
        kept: None,
    }
}

/// Gradients of shards of so many prompts, joined as an update joins them; and the sum of their weights.
fn joined(
    config: &EstimatorConfig,
    policy: &Policy,
    worths: &[Worth],
    prompts: usize,
) -> (Tensor, f64) {
    let sampler = sampler(4, 4, 4, PositionRule::Random);
    let (mut sum, mut over) = (None, 0.0);
    let rows = completions();
    for (rows, worths) in rows.chunks(prompts * GROUP).zip(worths.chunks(prompts * GROUP)) {
        let trajectories = trajectories(rows);
        let batch = Batch::new(&trajectories, worths, GROUP, &sampler, policy.config()).unwrap();
        let estimator = estimator(&batch, config, Seed::new(1));
        let policies = Policies { policy, behaviour: None, reference: None };
        let share = gradient_of(&estimator, &policies, config) * estimator.mean_over;
        sum = Some(sum.map_or_else(|| share.copy(), |sum: Tensor| sum + &share));
        over += estimator.mean_over;
    }
    (sum.unwrap() / over, over)
}

fn worths(left_out: &[usize]) -> Vec<Worth> {
    let worth = |(row, advantage)| {
        let counted = !left_out.contains(&row);
        Worth { advantage: if counted { advantage } else { 0.0 }, counted }
    };
    [1.0, -0.5, 0.25, -1.0, 0.75, -0.75].into_iter().enumerate().map(worth).collect()
}

#[test]
fn a_mean_over_groups_or_tokens_does_not_depend_on_shards() {
    let policy = policy(1);
    let kinds = [(EstimatorKind::DiffuGrpo, 1), (EstimatorKind::MergedStep, 3)];
    for (kind, k) in kinds {
        for (token_mean, left_out, expected) in [
            (TokenMean::Group, vec![], 3.0),
            (TokenMean::Group, vec![2, 3], 2.0),
            (TokenMean::Iteration, vec![], 17.0),
            (TokenMean::Iteration, vec![2, 3], 11.0),
        ] {
            let config = EstimatorConfig { token_mean, k: Samples::Count(k), ..config(kind) };
            let worths = worths(&left_out);
            let (whole, over) = joined(&config, &policy, &worths, 3);
            assert_eq!(over, expected, "{kind}, {token_mean:?}");
            let (apart, over) = joined(&config, &policy, &worths, 1);
            assert_eq!(over, expected, "{kind}, {token_mean:?}");
            assert!(relative(&apart, &whole) < 1e-12, "{kind}, {token_mean:?}, {left_out:?}");
        }
    }
}

/// Prompts of few tokens weigh as much as others, or in proportion to their tokens.
#[test]
fn the_two_means_weigh_prompts_by_one_and_by_their_tokens() {
    let policy = policy(1);
    let worths = worths(&[]);
    for kind in [EstimatorKind::DiffuGrpo, EstimatorKind::MergedStep, EstimatorKind::CoupledGrpo] {
        for token_mean in [TokenMean::Group, TokenMean::Iteration] {
            let config = EstimatorConfig { token_mean, k: Samples::Count(1), ..config(kind) };
            let trajectories = trajectories(&completions());
            let sampler = sampler(4, 4, 4, PositionRule::Random);
            let batch =
                Batch::new(&trajectories, &worths, GROUP, &sampler, policy.config()).unwrap();
            let estimator = estimator(&batch, &config, Seed::new(1));
            let factors = (0..estimator.units).flat_map(|n| (estimator.unit)(n).factors);
            let mut shares = [0.0; 3];
            for factor in factors {
                let row = worths.iter().position(|worth| worth.advantage == factor.advantage);
                shares[row.unwrap() / GROUP] += factor.weight;
            }
            let expected = match token_mean {
                TokenMean::Group => [1.0 / 3.0; 3],
                TokenMean::Iteration => [5.0, 6.0, 6.0].map(|tokens| tokens / 17.0),
            };
            let error = |n: usize| (shares[n] - expected[n]).abs();
            assert!((0..3).all(|n| error(n) < 1e-12), "{kind}, {token_mean:?}: {shares:?}");
        }
    }
}
