//! Passes in parts against passes in one piece.

use super::*;
use crate::model::PADDING;
use crate::model::tests::{ids_BL, small};

#[test]
fn a_pass_without_a_graph_is_the_recorded_one_to_the_bit() {
    let policy = small();
    let padded_1L = Tensor::from_slice(&[PADDING, PADDING, 4, 8, 9, 9]).view([1, -1]);
    // More sequences than a part has.
    let ids_BL = Tensor::cat(&[ids_BL(), padded_1L], 0).repeat([700, 1]);
    let at_BQ = Tensor::from_slice(&[3i64, 5, 4, 2, 2, 3]).view([3, 2]).repeat([700, 1]);
    for queries in
        [Queries::All, Queries::Range { start: 2, len: 3 }, Queries::At(at_BQ.shallow_clone())]
    {
        let recorded = policy.hidden(&ids_BL, &queries).unwrap();
        let _no_grad = tch::no_grad_guard();
        assert_eq!(policy.hidden(&ids_BL, &queries).unwrap(), recorded, "{queries:?}");
    }
}
