//! The norm against its formula in f64.

use tch::Kind;

use super::super::testing::{compare, random};
use super::*;

#[test]
fn a_norm_is_its_formula() {
    for width in [1, 7, 16, 96, 100] {
        let inputs = [random(1, &[2, 3, width]), random(2, &[width])];
        let formula = |i: &[Tensor]| {
            let mean = (&i[0] * &i[0]).mean_dim(-1, true, Kind::Double);
            &i[0] * (mean + 1e-5).rsqrt() * &i[1]
        };
        compare(&inputs, |i| rms_norm(&i[0], &i[1], 1e-5), formula, 2e-5);
    }
}
