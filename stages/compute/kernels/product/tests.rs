//! Products against the law of their sums, bit by bit, and against libtorch.

use super::super::testing::{bits, compare, random};
use super::*;

/// The law of sums, number by number.
fn by_the_law(
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    [m, k, n]: [usize; 3],
) -> Vec<u32> {
    let number = |i: usize, j: usize| {
        let chain = |from: usize| {
            (from..k.min(from + 256)).fold(0f32, |sum, k| a(i, k).mul_add(b(k, j), sum))
        };
        (0..k).step_by(256).map(chain).reduce(|sum, block| sum + block).unwrap()
    };
    (0..m * n).map(|cell| number(cell / n, cell % n).to_bits()).collect()
}

/// A thousand shapes, forward and backward: what another processor's kernels compute is the same law, so the same bits.
#[test]
fn every_number_is_summed_by_the_law() {
    let seed = agrpo_spec::Seed::new(7);
    for shape in 0..1000 {
        let size = |n: u32, most: u64| 1 + usize::try_from(seed.below(most, shape, n)).unwrap();
        // One in ten has more terms than a block of sums; the last ones are cut in every way.
        let [m, k, n] = match shape {
            997 => [100, 300, 530],
            998 => [3, 700, 530],
            999 => [20, 8500, 9],
            _ => [size(0, 23), size(1, if shape % 10 == 0 { 600 } else { 40 }), size(2, 37)],
        };
        let as_i64 = |n: usize| i64::try_from(n).unwrap();
        let (x, w) =
            (random(u64::from(shape), &[as_i64(m), as_i64(k)]), random(5, &[as_i64(n), as_i64(k)]));
        let (x, w) = (x.set_requires_grad(true), w.set_requires_grad(true));
        let y = linear(&x, &w);
        let dy = random(6, &y.size());
        (&y * &dy).sum(tch::Kind::Float).backward();
        let (x_, w_, dy_) = (x.detach(), w.detach(), dy);
        let (x_, w_, dy_) = (numbers(&x_), numbers(&w_), numbers(&dy_));
        let expected = by_the_law(|i, l| x_[i * k + l], |l, j| w_[j * k + l], [m, k, n]);
        assert_eq!(bits(&y), expected, "x W' of {m} x {k} x {n}");
        let expected = by_the_law(|i, l| dy_[i * n + l], |l, j| w_[l * k + j], [m, n, k]);
        assert_eq!(bits(&x.grad()), expected, "dy W of {m} x {n} x {k}");
        let expected = by_the_law(|i, l| dy_[l * n + i], |l, j| x_[l * k + j], [n, m, k]);
        assert_eq!(bits(&w.grad()), expected, "dy' x of {n} x {m} x {k}");
    }
}

#[test]
fn a_linear_layer_is_libtorchs() {
    let inputs = [random(1, &[3, 5, 300]), random(2, &[7, 300])];
    compare(&inputs, |i| linear(&i[0], &i[1]), |i| i[0].linear(&i[1], None::<&Tensor>), 1e-4);
}
