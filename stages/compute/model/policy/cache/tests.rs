//! Tests of windows: the pass that keeps is the plain one, a fresh window is exact, a stale one is
//! not, and a sequence gives what it gives alone.

use agrpo_spec::{AttendsTo, Family, Predicts};
use tch::Kind;

use super::*;
use crate::model::PADDING;
use crate::model::tests::{ids_BL, small, small_of};

fn positions(of: &[i64], rows: i64) -> Tensor {
    Tensor::from_slice(of).repeat([rows, 1])
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Hidden states at `queries` after a pass over a window of `now`, keys and values kept from `before`.
fn through_window(
    policy: &Policy,
    (before_BL, now_BL): (&Tensor, &Tensor),
    (start, width): (i64, i64),
    queries: &[i64],
) -> Tensor {
    let rows = before_BL.size()[0];
    let (_, kept) = policy.hidden_and_keep(before_BL, &positions(&[0], rows)).unwrap();
    let (ids_NW, kept_N) =
        (now_BL.narrow(1, start, width), Tensor::arange(rows, (Kind::Int64, now_BL.device())));
    let window = Window { ids_NW: &ids_NW, start, kept_N: &kept_N };
    policy.hidden_in_window(&window, &positions(queries, rows), &kept).unwrap()
}

fn exact(policy: &Policy, ids_BL: &Tensor, queries: &[i64]) -> Tensor {
    let positions_BQ = positions(queries, ids_BL.size()[0]);
    policy.hidden(ids_BL, &Queries::At(positions_BQ)).unwrap()
}

#[test]
fn the_pass_that_keeps_is_the_plain_pass_to_the_bit() {
    let both = |family| [small_of(family), small_of(family).to_double()];
    for policy in Family::ALL.into_iter().flat_map(both) {
        let (kept, _) = policy.hidden_and_keep(&ids_BL(), &positions(&[5, 2], 2)).unwrap();
        assert_eq!(kept, exact(&policy, &ids_BL(), &[5, 2]));
    }
}

#[test]
fn a_fresh_window_is_exact_in_every_kind_and_a_stale_one_is_not() {
    for family in Family::ALL {
        let shift = i64::from(family.traits().predicts == Predicts::Next);
        for (policy, most) in [(small_of(family), 1e-5), (small_of(family).to_double(), 1e-12)] {
            let ids = ids_BL();
            for window in [(0, 6), (2, 4), (2, 2), (5 - shift, 1 + shift)] {
                let queries = [window.0 + window.1 - 1 + shift, window.0 + shift];
                let queries = queries.map(|position| position.min(5));
                let found = through_window(&policy, (&ids, &ids), window, &queries);
                let expected = exact(&policy, &ids, &queries);
                assert_eq!(found.kind(), expected.kind());
                let worst = apart(&found, &expected);
                assert!(worst < most, "{window:?}: {worst}");
            }
            // What is behind a block changes nothing before it, so nothing is stale.
            if family.traits().attends_to != AttendsTo::All {
                continue;
            }
            let written = ids.copy();
            drop(written.narrow(1, 3, 1).fill_(7));
            let at = [2 + shift];
            let expected = exact(&policy, &written, &at);
            let all = through_window(&policy, (&ids, &written), (0, 6), &at);
            assert!(apart(&all, &expected) < most, "a window of everything keeps nothing");
            let prefix = apart(&through_window(&policy, (&ids, &written), (2, 4), &at), &expected);
            let dual = apart(&through_window(&policy, (&ids, &written), (2, 2), &at), &expected);
            assert!(prefix > 1e-4 && dual > 1e-4, "not stale: {prefix}, {dual}");
        }
    }
}

/// Positions without a token are not attended to, and sequences find their own keys, whatever the order.
#[test]
fn sequences_of_a_batch_give_what_they_give_alone() {
    let policy = small();
    let (long, short) = ([1i64, 2, 3, 9, 9, 9], [4i64, 8, 9, 9]);
    let padded = [PADDING, PADDING, 4, 8, 9, 9];
    let row = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0);
    let both = Tensor::cat(&[row(&long), row(&padded)], 0);
    let (_, kept) = policy.hidden_and_keep(&both, &positions(&[0], 2)).unwrap();
    let states = [[7i64, 9, 9], [8, 5, 9], [8, 9, 1]];
    let at = |numbers: &[i64]| {
        let ids: Vec<i64> =
            numbers.iter().flat_map(|&n| states[usize::try_from(n).unwrap()]).collect();
        let ids_NW = Tensor::from_slice(&ids).view([-1, 3]);
        let whose: Vec<i64> = numbers.iter().map(|&n| i64::from(n > 0)).collect();
        let window = Window { ids_NW: &ids_NW, start: 3, kept_N: &Tensor::from_slice(&whose) };
        let rows = i64::try_from(numbers.len()).unwrap();
        policy.hidden_in_window(&window, &positions(&[5, 3, 4], rows), &kept).unwrap()
    };
    let all = at(&[2, 0, 1]);
    for (place, number) in [(0, 2), (1, 0), (2, 1)] {
        assert_eq!(all.get(place), at(&[number]).get(0), "neighbours do not matter, to the bit");
    }
    let alone = |before: &[i64], state: &[i64], start: i64| {
        let (before, length) = (row(before), i64::try_from(before.len()).unwrap());
        let now = Tensor::cat(&[before.narrow(1, 0, start), row(state)], 1);
        let queries = [start + 2, start, start + 1];
        assert_eq!(start + 3, length);
        through_window(&policy, (&before, &now), (start, 3), &queries).get(0)
    };
    assert!(apart(&all.get(1), &alone(&long, &states[0], 3)) < 1e-5);
    assert!(apart(&all.get(2), &alone(&short, &states[1], 1)) < 1e-5);
    assert!(apart(&all.get(0), &alone(&short, &states[2], 1)) < 1e-5);
}

#[test]
fn a_window_outside_the_kept_positions_is_refused() {
    let policy = small();
    let (_, kept) = policy.hidden_and_keep(&ids_BL(), &positions(&[0], 2)).unwrap();
    let (ids_NW, kept_N) = (ids_BL().narrow(1, 0, 4), Tensor::from_slice(&[0i64, 1]));
    let window = Window { ids_NW: &ids_NW, start: 3, kept_N: &kept_N };
    let refused = policy.hidden_in_window(&window, &positions(&[3], 2), &kept).unwrap_err();
    assert!(refused.to_string().contains("the window 3..7 lies outside 0..6"), "{refused}");
}
