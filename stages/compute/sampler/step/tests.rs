//! Tests of which positions a step writes, on rows of known probabilities.

use agrpo_spec::{Family, PositionRule, Sampler};

use super::*;
use crate::sampler::{Drawn, rank};
use crate::testing::{real, sampler};

/// Probabilities of three tokens at each position; the mask, the last one, has none.
type Rows<'a> = &'a [[f32; 3]];

/// What the first step of a block writes of rows whose first token was drawn.
fn written(sampler: &Sampler, family: Family, rows: Rows<'_>) -> Vec<usize> {
    let logits: Vec<Vec<f32>> =
        rows.iter().map(|p| p.iter().map(|p| p.ln()).chain([-100.0]).collect()).collect();
    let drawn = |(position, logits)| Drawn { position, logits, token: 0 };
    let drawn: Vec<Drawn<'_>> = logits.iter().map(Vec::as_slice).enumerate().map(drawn).collect();
    let ranked = rank((sampler, family), 3, 0, &drawn).unwrap();
    ranked.all[..ranked.written].iter().map(|(position, _)| *position).collect()
}

/// LLaDA writes one token or more, SDAR as many as its step or more.
#[test]
fn a_threshold_is_the_family_s() {
    let rows = [[0.5, 0.3, 0.2], [0.95, 0.03, 0.02], [0.3, 0.5, 0.2], [0.92, 0.04, 0.04]];
    let of = |threshold, family| {
        let two_a_step = sampler(4, 4, 2, PositionRule::LowConfidence);
        written(&Sampler { threshold: Some(real(threshold)), ..two_a_step }, family, &rows)
    };
    for (threshold, llada, sdar) in [
        (0.99, &[1][..], &[1, 3][..]),
        (0.94, &[1], &[1, 3]),
        (0.9, &[1, 3], &[1, 3]),
        (0.4, &[1, 3, 0], &[1, 3, 0]),
        (0.2, &[1, 3, 0, 2], &[1, 3, 0, 2]),
    ] {
        let found = (of(threshold, Family::Llada), of(threshold, Family::Sdar));
        assert_eq!(found, (llada.to_vec(), sdar.to_vec()), "{threshold}");
    }
}

/// A token that is as probable as the threshold is above it for LLaDA, not for SDAR.
#[test]
fn a_token_at_the_threshold_is_above_it_for_some_families() {
    let certain = Sampler {
        threshold: Some(real(1.0)),
        top_k: 1,
        ..sampler(3, 3, 3, PositionRule::LowConfidence)
    };
    let rows = [[0.5, 0.3, 0.2]; 3];
    assert_eq!(written(&certain, Family::Llada, &rows), [0, 1, 2]);
    assert_eq!(written(&certain, Family::Sdar, &rows), [0]);
}

/// By how much the best token is ahead of the second, drawn or not.
#[test]
fn margins_are_of_the_two_most_probable_tokens() {
    let rows = [[0.5, 0.45, 0.05], [0.2, 0.6, 0.2], [0.34, 0.33, 0.33], [0.25, 0.5, 0.25]];
    let of = |position| written(&sampler(4, 4, 2, position), Family::Llada, &rows);
    assert_eq!(of(PositionRule::Margin), [1, 3]);
    assert_eq!(of(PositionRule::LowConfidence), [0, 2], "by the token that was drawn");
    let kept = Sampler { top_k: 1, ..sampler(4, 4, 2, PositionRule::Margin) };
    assert_eq!(
        written(&kept, Family::Llada, &[rows[0], rows[2]]),
        [0, 1],
        "one token: all are certain"
    );
}

/// Of a sampler's steps in a block whose positions 4..8 are masked: what each asks for.
fn asked(sampler: &Sampler, family: Family, number: usize) -> Option<Vec<usize>> {
    let schedule = UnmaskSchedule::new(sampler, family);
    let draws = Draws { seed: Seed::new(1), step: 0 };
    Step { schedule, number }.asked(draws, &[4, 5, 6, 7]).map(|asked| asked.positions)
}

/// From left to right a step asks for what it writes alone, in order of margin for all.
#[test]
fn positions_that_need_no_distribution_are_chosen_first() {
    let of = |position| asked(&sampler(4, 4, 2, position), Family::Llada, 0).unwrap();
    assert_eq!(of(PositionRule::LeftToRight), [4, 5]);
    assert_eq!(of(PositionRule::Margin), [4, 5, 6, 7]);
    assert_eq!(of(PositionRule::Random).len(), 2);
}

/// On Dream's grid the first of as many steps as tokens writes nothing; a threshold has no such step.
#[test]
fn a_step_that_writes_nothing_asks_for_nothing() {
    let one_each = sampler(17, 17, 17, PositionRule::LowConfidence);
    assert_eq!(asked(&one_each, Family::Dream, 0), None);
    assert!(asked(&one_each, Family::Llada, 0).is_some());
    let sure = Sampler { threshold: Some(real(0.5)), ..one_each };
    assert!(asked(&sure, Family::Dream, 0).is_some());
}
