//! What a left-out key of a run file means. Published values where the paper has them.

use crate::digest::Real;

pub(super) fn real(value: f64) -> Real {
    Real::new(value).expect("defaults are finite")
}
pub(super) fn zero() -> Real {
    real(0.0)
}
pub(super) fn one() -> Real {
    real(1.0)
}
pub(super) fn a_fifth() -> Real {
    real(0.2)
}
pub(super) fn most() -> Real {
    real(0.7)
}
pub(super) fn rope_theta() -> Real {
    real(10_000.0)
}
pub(super) fn norm_eps() -> Real {
    real(1e-5)
}
pub(super) fn init_std() -> Real {
    real(0.02)
}
pub(super) fn beta1() -> Real {
    real(0.9)
}
pub(super) fn beta2() -> Real {
    real(0.99)
}
pub(super) fn adam_eps() -> Real {
    real(1e-8)
}
pub(super) fn weight_decay() -> Real {
    real(0.01)
}
pub(super) fn three() -> u32 {
    3
}
pub(super) fn eight() -> u32 {
    8
}
pub(super) fn nine() -> u32 {
    9
}
pub(super) fn prompt_tokens() -> u32 {
    1024
}
pub(super) fn twelve() -> u32 {
    12
}
pub(super) fn ninety_nine() -> u32 {
    99
}
pub(super) fn sixty_four() -> u32 {
    64
}
pub(super) fn lora_alpha() -> Real {
    real(64.0)
}
pub(super) fn temperature() -> Real {
    real(0.6)
}
pub(super) fn top_k() -> u32 {
    150
}
pub(super) fn top_p() -> Real {
    real(0.99)
}
pub(super) fn prompt_mask() -> Real {
    real(0.15)
}
