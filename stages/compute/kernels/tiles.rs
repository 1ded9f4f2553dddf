//! Products of small matrices that lie in a cache: attention's, for one head of one sequence. Large ones are
//! `product.rs`'s.
//!
//! A number of a product is one chain of fused multiply-adds in the order of k, from 0 or from what is there: it does
//! not depend on how the work is cut.

use super::lanes::{LANES, Lanes};

/// Rows that are computed together; `a` is read for so many, and `into` has room for them.
pub(super) const TILE: usize = 4;

/// A matrix of which [`TILE`] rows are read together.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Row-major, rows of so many numbers.
    Rows(&'a [f32], usize),
    /// The transpose of a row-major matrix with rows of so many numbers.
    Columns(&'a [f32], usize),
}

/// `into` = `a` `b`, or `into` + `a` `b`. `rows` is a multiple of [`TILE`]; `b` is K x `width` and `into` `rows` x `width`,
/// row-major, `width` a multiple of [`LANES`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(
    a: Left<'_>,
    (rows, k): (usize, usize),
    b: &[f32],
    (into, width): (&mut [f32], usize),
    is_added: bool,
) {
    for row in (0..rows).step_by(TILE) {
        for column in (0..width).step_by(LANES) {
            let mut sums = [[0f32; LANES]; TILE];
            if is_added {
                for (n, sums) in sums.iter_mut().enumerate() {
                    sums.copy_from_slice(&into[(row + n) * width + column..][..LANES]);
                }
            }
            let b = b[column..].chunks(width).take(k);
            match a {
                Left::Rows(numbers, long) => {
                    let mut rows = [&numbers[..0]; TILE];
                    for (n, rows) in rows.iter_mut().enumerate() {
                        *rows = &numbers[(row + n) * long..][..k];
                    }
                    let [first, second, third, fourth] = rows;
                    for (n, b) in (0..k).zip(b) {
                        add(&mut sums, [first[n], second[n], third[n], fourth[n]], b);
                    }
                }
                Left::Columns(numbers, long) => {
                    for (column, b) in numbers[row..].chunks(long).zip(b) {
                        let part = &column[..TILE];
                        add(&mut sums, [part[0], part[1], part[2], part[3]], b);
                    }
                }
            }
            for (n, sums) in sums.iter().enumerate() {
                into[(row + n) * width + column..][..LANES].copy_from_slice(sums);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add(sums: &mut [Lanes; TILE], factors: [f32; TILE], b: &[f32]) {
    let b = &b[..LANES];
    for row in 0..TILE {
        for lane in 0..LANES {
            sums[row][lane] = factors[row].mul_add(b[lane], sums[row][lane]);
        }
    }
}
