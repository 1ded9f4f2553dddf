//! The gate of SwiGLU (Shazeer, arXiv 2002.05202): silu(g) u, silu(g) = g s, s = 1 / (1 + e^-g).
//!
//! ```text
//! dg = dy u s (1 + g (1 - s)),   du = dy g s
//! ```

use tch::Tensor;

use super::custom::differentiable;
use super::lanes::{exp, vectorised};
use super::memory::{filled, in_one_piece, numbers};
use super::phases::{Phase, measured};

/// From ... x 2M, gates before values, to ... x M.
pub(crate) fn swiglu(gated: &Tensor) -> Tensor {
    let gated_N2M = in_one_piece(&gated.detach());
    let mut size = gated.size();
    let width = size.pop().expect("the input of a gate has a width") / 2;
    size.push(width);
    let width = usize::try_from(width).expect("sizes are positive");
    let y = filled(&size, |y| gate(numbers(&gated_N2M), width, y));
    differentiable(&[gated], y, move |dy| {
        let dy = in_one_piece(dy);
        let gradient = filled(&gated_N2M.size(), |gradient| {
            differentiate(numbers(&gated_N2M), width, numbers(&dy), gradient);
        });
        vec![Some(gradient)]
    })
}

fn gate(gated: &[f32], width: usize, y: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn rows(gated: &[f32], width: usize, y: &mut [f32]) {
        for (row, y) in gated.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        }
    }
    measured(Phase::ElementWise, || vectorised!(rows(gated, width, y)));
}

fn differentiate(gated: &[f32], width: usize, dy: &[f32], gradient: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn rows(gated: &[f32], width: usize, dy: &[f32], gradient: &mut [f32]) {
        let rows = gated.chunks_exact(2 * width).zip(dy.chunks_exact(width));
        for ((row, dy), gradient) in rows.zip(gradient.chunks_exact_mut(2 * width)) {
            let (gate, up) = row.split_at(width);
            let (d_gate, d_up) = gradient.split_at_mut(width);
            for n in 0..width {
                let (g, u, dy) = (gate[n], up[n], dy[n]);
                let s = 1.0 / (1.0 + exp(-g));
                d_up[n] = dy * (g * s);
                d_gate[n] = dy * u * (s * g.mul_add(1.0 - s, 1.0));
            }
        }
    }
    measured(Phase::ElementWise, || vectorised!(rows(gated, width, dy, gradient)));
}

#[cfg(test)]
mod tests;
