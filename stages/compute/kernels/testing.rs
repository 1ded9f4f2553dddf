//! Random tensors, and comparisons with libtorch in f64, for the tests of kernels.

use agrpo_spec::Seed;
use tch::{Kind, Tensor};

/// Numbers between -1 and 1.
pub(super) fn random(seed: u64, size: &[i64]) -> Tensor {
    let seed = Seed::new(seed);
    let count = size.iter().product::<i64>();
    let numbers: Vec<f64> =
        (0..u32::try_from(count).unwrap()).map(|n| 2.0 * seed.uniform(n, 0) - 1.0).collect();
    Tensor::from_slice(&numbers).to_kind(Kind::Float).view(size)
}

/// The results of `kernel` and `reference` and the gradients of all inputs, weighted at random, lie within `tolerance` of
/// each other.
pub(super) fn compare(
    inputs: &[Tensor],
    kernel: impl Fn(&[Tensor]) -> Tensor,
    reference: impl Fn(&[Tensor]) -> Tensor,
    tolerance: f64,
) {
    let leaves = |kind| -> Vec<Tensor> {
        inputs.iter().map(|t| t.to_kind(kind).detach().copy().set_requires_grad(true)).collect()
    };
    let (ours, theirs) = (leaves(Kind::Float), leaves(Kind::Double));
    let (y, expected) = (kernel(&ours), reference(&theirs));
    assert_eq!(y.size(), expected.size());
    let weights = random(99, &y.size());
    (&y * &weights).sum(Kind::Float).backward();
    (&expected * &weights).sum(Kind::Double).backward();
    let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
    assert!(apart(&y, &expected) < tolerance, "results: {}", apart(&y, &expected));
    for (n, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let apart = apart(&a.grad(), &b.grad());
        assert!(apart < tolerance, "gradient of input {n}: {apart}");
    }
}

/// The bits of a tensor's numbers.
pub(super) fn bits(tensor: &Tensor) -> Vec<u32> {
    super::memory::numbers(&tensor.detach().contiguous()).iter().map(|x| x.to_bits()).collect()
}
