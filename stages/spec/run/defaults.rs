//! Default values of a run file's keys: the published ones where the paper has them.

use crate::digest::Real;

pub(super) fn real(value: f64) -> Real {
    Real::new(value).expect("defaults are finite")
}

pub(super) fn whole<const N: u32>() -> u32 {
    N
}

/// N / D. A quotient of doubles is rounded once, so 2 / 10 is the double that `0.2` is.
pub(super) fn ratio<const N: u32, const D: u32>() -> Real {
    real(f64::from(N) / f64::from(D))
}
