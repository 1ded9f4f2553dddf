//! Which sizes of a batch a device computes by kernels that agree: a row of a product, or a sequence of an attention, beside
//! so many others, bit by bit.
//!
//! Libraries choose kernels by shape. Sampler and learner have ratios of exactly 1 where the sizes of their batches
//! agree. [`check_rows`](super::check_rows) is the same question for all small shapes on the processor. Trains, stores and
//! corrects nothing.

use agrpo_spec::{ModelShape, Precision};
use serde::Serialize;
use tch::{Kind, Tensor, no_grad_guard};

use super::linear::{product, wide};
use super::placement::Placement;
use super::policy::{Attended, Queries, Rotation, attention};
use crate::device::Device;
use crate::kernels::Heads;

/// Numbers of rows of a product.
const ROWS: [i64; 14] = [8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 3072, 4096];
/// Numbers of sequences of an attention, of so many positions, and queries of each.
const SEQUENCES: [i64; 6] = [1, 2, 4, 8, 16, 32];
const POSITIONS: i64 = 256;
const QUERIES: [i64; 3] = [8, 32, POSITIONS];

/// The sizes of one operation's batch by the bits that they give to the first rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// What is computed: a product's name with its inputs and outputs, or an attention with its queries.
    pub operation: String,
    /// Sizes that agree with each other; one list if all do.
    pub sizes: Vec<Vec<i64>>,
}

/// Computes a model's products and its attention in batches of many sizes.
pub fn check_batches(
    device: Device,
    precision: Precision,
    model: &ModelShape,
    vocabulary: u32,
) -> Vec<Agreement> {
    let _no_grad = no_grad_guard();
    let at = Placement::on(device, precision);
    let [d, m] = [model.d_model, model.mlp_hidden_size].map(i64::from);
    let rank = 64;
    let products = [
        ("keys and values", d, 2 * d),
        ("query, key and value", d, 3 * d),
        ("attention's output", d, d),
        ("gates and values", d, 2 * m),
        ("output of the gates", m, d),
        ("head", d, i64::from(vocabulary)),
        ("adapter, down", d, rank),
        ("adapter, up", rank, d),
    ];
    let of_product = |(name, inputs, outputs)| {
        let weight_OxI = noise(&[outputs, inputs], at);
        let x_NI = noise(&[ROWS[ROWS.len() - 1], inputs], at);
        let sizes = agreeing(&ROWS, |rows| {
            product(&x_NI.narrow(0, 0, rows), &weight_OxI).narrow(0, 0, ROWS[0])
        });
        Agreement { operation: format!("{name}, {inputs} to {outputs}"), sizes }
    };
    let heads = i64::from(model.n_heads);
    let of_attention = |queries| {
        let sizes = agreeing(&SEQUENCES, |count| first_of(count, queries, (heads, d / heads), at));
        Agreement { operation: format!("attention, {queries} queries a sequence"), sizes }
    };
    let attentions = QUERIES.into_iter().map(of_attention);
    products.into_iter().map(of_product).chain(attentions).collect()
}

/// The first of so many sequences' attention.
fn first_of(count: i64, queries: i64, (heads, head): (i64, i64), at: Placement) -> Tensor {
    let size = [count, POSITIONS, heads, head];
    let (k_BLHE, v_BLHE) = (noise(&size, at), noise(&size, at) * 0.5);
    let q_BQHE = noise(&[count, queries, heads, head], at);
    let rotation = Rotation::new((head, 1e4), POSITIONS, (wide(at.kind), at.device));
    let queried =
        if queries == POSITIONS { Queries::All } else { Queries::Range { start: 0, len: queries } };
    let at = Attended {
        queries: &queried,
        rotation: &rotation,
        block: None,
        bias: None,
        is_padded: queries != POSITIONS,
    };
    let of = |of| Heads { of, first: 0 };
    attention([of(&q_BQHE), of(&k_BLHE), of(&v_BLHE)], [heads; 2], &at).narrow(0, 0, 1)
}

/// The sizes, those together that give equal bits.
fn agreeing(sizes: &[i64], compute: impl Fn(i64) -> Tensor) -> Vec<Vec<i64>> {
    let mut found: Vec<(Tensor, Vec<i64>)> = vec![];
    for &size in sizes {
        let result = compute(size).contiguous();
        match found.iter_mut().find(|(other, _)| *other == result) {
            Some((_, alike)) => alike.push(size),
            None => found.push((result, vec![size])),
        }
    }
    found.into_iter().map(|(_, alike)| alike).collect()
}

/// Numbers from -1 to 1 without an order. Those of a tensor's first rows do not depend on how many follow.
fn noise(size: &[i64], Placement { device, kind }: Placement) -> Tensor {
    let count: i64 = size.iter().product();
    let index = Tensor::arange(count, (Kind::Double, device));
    (index * 12.9898).sin_().to_kind(kind).view(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the learner's ratios of exactly 1 rest on.
    #[test]
    fn on_the_processor_all_sizes_agree() {
        crate::use_one_thread();
        let real = |value| agrpo_spec::Real::new(value).unwrap();
        let model = ModelShape {
            family: agrpo_spec::Family::default(),
            n_kv_heads: None,
            head_size: None,
            attention_block: None,
            n_experts: None,
            experts_per_token: None,
            d_model: 16,
            n_layers: 1,
            n_heads: 2,
            mlp_hidden_size: 24,
            rope_theta: real(1e4),
            rms_norm_eps: real(1e-5),
            init_std: real(0.02),
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let found = check_batches(Device::Cpu, precision, &model, 40);
            assert_eq!(found.len(), 8 + QUERIES.len());
            for Agreement { operation, sizes } in found {
                assert_eq!(sizes.len(), 1, "{operation} in {precision:?}: {sizes:?}");
            }
        }
    }

    #[test]
    fn sizes_with_other_bits_are_apart() {
        let of = |size: i64| Tensor::from_slice(&[if size > 8 { 1.0 } else { 2.0 }]);
        assert_eq!(agreeing(&[4, 8, 16], of), [vec![4, 8], vec![16]]);
    }
}
