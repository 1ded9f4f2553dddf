//! The gate against its formula in f64.

use super::super::testing::{compare, random};
use super::*;

#[test]
fn a_gate_is_its_formula_also_far_from_zero() {
    let inputs = [random(1, &[4, 5, 62]) * 30.0];
    let formula = |i: &[Tensor]| {
        let parts = i[0].chunk(2, -1);
        parts[0].silu() * &parts[1]
    };
    compare(&inputs, |i| swiglu(&i[0]), formula, 1e-3);
    let far = Tensor::from_slice(&[-200f32, 200.0, 1.0, 1.0]);
    let found = Vec::<f32>::try_from(swiglu(&far)).unwrap();
    assert!(found[0].abs() < 1e-30 && found[1] == 200.0, "{found:?}");
}
