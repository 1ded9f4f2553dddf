//! How units are packed into passes: with padding in their order, without it by length.

use super::*;
use crate::estimator::pass::passes;
use crate::model::PADDING;

/// Units of one state each, with so many places of padding.
fn passes_of(padding: &[usize], micro_batch: usize, may_pad: bool) -> Vec<Vec<usize>> {
    let state = |n: usize| {
        let mut state = vec![length(n % 4); 6];
        state[..padding[n]].fill(PADDING);
        state
    };
    let unit = move |n| Unit { states: vec![state(n)], factors: vec![] };
    let (units, unit) = (padding.len(), Box::new(unit));
    let surrogate = Surrogate::default();
    let estimator = Estimator { units, unit, surrogate, mean_over: 1.0, samples: units };
    passes(&estimator, micro_batch, may_pad)
}

#[test]
fn padded_passes_take_units_in_their_order() {
    let padding = [0, 2, 0, 2, 0, 2];
    assert_eq!(passes_of(&padding, 3, true), [vec![0, 1, 2], vec![3, 4, 5]]);
    assert_eq!(passes_of(&padding, 4, true), [vec![0, 1, 2, 3, 4, 5]], "of 4 distinct states");
}

#[test]
fn passes_without_padding_take_states_of_one_length() {
    let padding = [2, 0, 2, 1, 0, 0, 2, 2];
    let whole = [vec![1, 4, 5], vec![3], vec![0, 2, 6, 7]];
    assert_eq!(passes_of(&padding, 64, false), whole);
    assert_eq!(passes_of(&padding, 3, false), whole, "of 3 distinct states at most");
    let single = [vec![1], vec![4], vec![5], vec![3], vec![0], vec![2, 6], vec![7]];
    assert_eq!(passes_of(&padding, 1, false), single);
    assert_eq!(passes_of(&[3; 5], 2, false), passes_of(&[3; 5], 2, true));
}
