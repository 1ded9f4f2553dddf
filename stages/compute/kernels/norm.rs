//! RMSNorm (Zhang and Sennrich, arXiv 1910.07467), row by row.
//!
//! ```text
//! y = w x r,  r = 1 / sqrt(mean(x^2) + eps)
//! dx = r (w dy - x r^2 mean(w dy x)),   dw = sum over rows of dy x r
//! ```
//! Sums over a row are kept in lanes; the sum over rows is in their order.

use tch::Tensor;

use super::custom::differentiable;
use super::lanes::{sum_of_products, vectorised};
use super::memory::{filled, in_one_piece, numbers};
use super::phases::{Phase, measured};

/// x / sqrt(mean(x^2) + eps) * weight, ... x D.
pub(crate) fn rms_norm(x: &Tensor, weight_D: &Tensor, eps: f64) -> Tensor {
    let (x_ND, w_D) = (in_one_piece(&x.detach()), in_one_piece(&weight_D.detach()));
    #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
    let eps = eps as f32;
    let y = filled(&x.size(), |y| normalise(numbers(&x_ND), numbers(&w_D), eps, y));
    let asked = weight_D.requires_grad();
    differentiable(&[x, weight_D], y, move |dy| {
        let dy = in_one_piece(dy);
        let mut dw = vec![0f32; w_D.numel()];
        let dx = filled(&x_ND.size(), |dx| {
            differentiate(numbers(&x_ND), numbers(&w_D), numbers(&dy), (eps, dx, &mut dw));
        });
        vec![Some(dx), asked.then(|| Tensor::from_slice(&dw))]
    })
}

fn normalise(x_ND: &[f32], w_D: &[f32], eps: f32, y_ND: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn rows(x_ND: &[f32], w_D: &[f32], eps: f32, y_ND: &mut [f32]) {
        for (x, y) in x_ND.chunks_exact(w_D.len()).zip(y_ND.chunks_exact_mut(w_D.len())) {
            let r = reciprocal_root(x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w_D) {
                *y = x * r * w;
            }
        }
    }
    measured(Phase::ElementWise, || vectorised!(rows(x_ND, w_D, eps, y_ND)));
}

/// 1 / sqrt(mean(x^2) + eps).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn reciprocal_root(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_products(x, x) / x.len() as f32 + eps).sqrt()
}

/// dx is written, dw added to.
fn differentiate(
    x_ND: &[f32],
    w_D: &[f32],
    dy_ND: &[f32],
    (eps, dx_ND, dw_D): (f32, &mut [f32], &mut [f32]),
) {
    #[target_feature(enable = "avx2,fma")]
    fn rows(
        x_ND: &[f32],
        w_D: &[f32],
        dy_ND: &[f32],
        (eps, dx_ND, dw_D): (f32, &mut [f32], &mut [f32]),
    ) {
        let d = w_D.len();
        let mut weighted = vec![0f32; d];
        let rows = x_ND.chunks_exact(d).zip(dy_ND.chunks_exact(d));
        for ((x, dy), dx) in rows.zip(dx_ND.chunks_exact_mut(d)) {
            let r = reciprocal_root(x, eps);
            for n in 0..d {
                weighted[n] = w_D[n] * dy[n];
                dw_D[n] = (dy[n] * r).mul_add(x[n], dw_D[n]);
            }
            let shared = -(sum_of_products(&weighted, x) / d as f32 * r * r);
            for n in 0..d {
                dx[n] = x[n].mul_add(shared, weighted[n]) * r;
            }
        }
    }
    measured(Phase::ElementWise, || vectorised!(rows(x_ND, w_D, dy_ND, (eps, dx_ND, dw_D))));
}

#[cfg(test)]
mod tests;
