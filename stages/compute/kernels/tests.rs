//! The same bits on every processor: digests of what all kernels compute, forward and backward, on fixed inputs.

use agrpo_spec::ArtifactDigest;
use tch::{Device, Kind, Tensor};

use super::testing::{bits, random};
use super::*;

const HEADS: i64 = 3;

/// The digest of the result of a kernel and of the gradients of its inputs.
fn digest(inputs: &[Tensor], kernel: impl Fn(&[Tensor]) -> Tensor) -> String {
    let leaves: Vec<Tensor> =
        inputs.iter().map(|input| input.copy().set_requires_grad(true)).collect();
    let y = kernel(&leaves);
    (&y * random(99, &y.size())).sum(Kind::Float).backward();
    let all = std::iter::once(bits(&y)).chain(leaves.iter().map(|leaf| bits(&leaf.grad())));
    let bytes: Vec<u8> = all.flatten().flat_map(u32::to_le_bytes).collect();
    ArtifactDigest::of(&bytes).short()
}

/// Results of stages have these bits in them: where a digest changes, the versions of stages go up.
#[test]
fn every_kernel_computes_the_same_bits_on_every_processor() {
    let rows = random(1, &[37, 70]);
    let found = [
        ("linear", digest(&[rows.copy(), random(2, &[21, 70])], |i| linear(&i[0], &i[1]))),
        ("rms_norm", digest(&[rows.copy(), random(2, &[70])], |i| rms_norm(&i[0], &i[1], 1e-5))),
        ("swiglu", digest(&[&rows * 20.0], |i| swiglu(&i[0]))),
        (
            "attention",
            digest(&[random(3, &[2, 70, 3 * HEADS, 22])], |i| {
                let angle = random(4, &[70, 1, 22]) * 3.0;
                let bias = Tensor::zeros([2, 1, 1, 70], (Kind::Float, Device::Cpu));
                drop(bias.narrow(3, 0, 5).fill_(f64::NEG_INFINITY));
                let heads = [0, 1, 2].map(|n| Heads { of: &i[0], first: n * HEADS });
                let angles = Angles { cos: &angle, sin: &(&angle * 0.5) };
                let seen = Seen { block: None, bias: Some(&bias) };
                attention(heads, [HEADS; 2], Positions::From(0), angles, seen)
            }),
        ),
    ];
    let expected = [
        ("linear", "8d92cdd36702"),
        ("rms_norm", "1c61f11521d1"),
        ("swiglu", "adc31316accc"),
        ("attention", "eb71d5be0255"),
    ];
    assert_eq!(found, expected.map(|(name, digest)| (name, digest.to_owned())));
}
