//! Attention against its formula in f64, and against itself in other layouts.

use tch::{Device, Kind};

use super::super::testing::{bits, compare, random};
use super::*;

const HEADS: i64 = 2;

/// A sequence longer than a tile of queries, one shorter than a vector; a head whose width is no power of two.
const SHAPES: [[i64; 4]; 3] = [[2, 20, 20, 24], [3, 5, 9, 6], [1, 70, 90, 32]];

fn angles(length: i64, width: i64) -> (Tensor, Tensor) {
    let angle = random(11, &[length, 1, width / 2]) * 3.0;
    let sine = angle.sin();
    (Tensor::cat(&[angle.cos(), angle.cos()], -1), Tensor::cat(&[-&sine, sine], -1))
}

fn reference(
    qkv: [Tensor; 3],
    (cos, sin): (&Tensor, &Tensor),
    at: &Tensor,
    bias: &Tensor,
) -> Tensor {
    let width = cos.size()[2];
    let rotate = |x: &Tensor, cos: &Tensor, sin: &Tensor| x * cos + x.roll([width / 2], [3]) * sin;
    let of = |table: &Tensor| {
        let picked = table.index_select(0, &at.flatten(0, 1));
        picked.view([at.size()[0], at.size()[1], 1, width])
    };
    let [q, k, v] = qkv;
    let (q, k) =
        (rotate(&q, &of(cos), &of(sin)).transpose(1, 2), rotate(&k, cos, sin).transpose(1, 2));
    let scores = q.matmul(&k.transpose(-1, -2)) / (width as f64).sqrt() + bias;
    scores.softmax(-1, Kind::Double).matmul(&v.transpose(1, 2)).transpose(1, 2)
}

/// With heads of keys that are shared and that are not, to all keys and in blocks.
#[test]
fn attention_is_its_formula_with_and_without_padding() {
    for ([batch, queries, keys, width], (sharing, block)) in SHAPES.into_iter().flat_map(|shape| {
        [(1, None), (2, None), (1, Some(4)), (2, Some(1))].map(|kind| (shape, kind))
    }) {
        let kv_heads = HEADS / sharing;
        let (cos, sin) = angles(keys, width);
        let at = (random(3, &[batch, queries]) * (keys / 2)).to_kind(Kind::Int64).abs();
        let bias = Tensor::zeros([batch, 1, 1, keys], (Kind::Float, Device::Cpu));
        let padded = bias.copy();
        drop(padded.narrow(0, 0, 1).narrow(3, 0, keys / 3).fill_(f64::NEG_INFINITY));
        // One head of the keys' tensor takes no part.
        let all = 2 * kv_heads + 1;
        let inputs =
            [random(1, &[batch, queries, HEADS, width]), random(2, &[batch, keys, all, width])];
        for bias in [&bias, &padded] {
            let kernel = |i: &[Tensor]| {
                let (q, k) = (Heads { of: &i[0], first: 0 }, Heads { of: &i[1], first: 0 });
                let v = Heads { of: &i[1], first: kv_heads };
                let angles = Angles { cos: &cos, sin: &sin };
                let seen = Seen { block, bias: Some(bias) };
                attention([q, k, v], [HEADS, kv_heads], Positions::At(&at), angles, seen)
            };
            let whole = with_blocks(bias, &at, block);
            let formula = |i: &[Tensor]| {
                let [k, v] = [0, kv_heads].map(|first| {
                    i[1].narrow(2, first, kv_heads).repeat_interleave_self_int(sharing, 2, None)
                });
                let tables = (&cos.to_kind(Kind::Double), &sin.to_kind(Kind::Double));
                reference([i[0].shallow_clone(), k, v], tables, &at, &whole)
            };
            compare(&inputs, kernel, formula, 1e-4);
        }
    }
}

/// A bias of padding with what is behind each query's block: B x 1 x Q x L.
fn with_blocks(bias_B11L: &Tensor, at_BQ: &Tensor, block: Option<i64>) -> Tensor {
    let (batch, keys) = (bias_B11L.size()[0], bias_B11L.size()[3]);
    let bias = bias_B11L.to_kind(Kind::Double);
    let Some(block) = block else { return bias };
    let padding = bias.isinf().sum_dim_intlist(3, false, Kind::Int64).view([batch, 1, 1]);
    let of = |positions: &Tensor| (positions - &padding).clamp_min(0).floor_divide_scalar(block);
    let keys_1L = Tensor::arange(keys, (Kind::Int64, Device::Cpu)).view([1, 1, keys]);
    let behind_BQL = of(&keys_1L).gt_tensor(&of(&at_BQ.unsqueeze(-1)));
    bias.masked_fill(&behind_BQL.unsqueeze(1), f64::NEG_INFINITY)
}

/// q, k and v beside each other in one tensor are the same as in three, and padding the same as shorter sequences.
#[test]
fn neither_the_layout_nor_padding_changes_a_bit() {
    let (keys, width) = (21, 8);
    let (cos, sin) = angles(keys, width);
    let all = random(1, &[2, keys, 3 * HEADS, width]);
    let run = |of: [&Tensor; 3], first: [i64; 3], start: i64, bias: Option<&Tensor>| {
        let heads = [0, 1, 2].map(|n| Heads { of: of[n], first: first[n] });
        let length = of[1].size()[1];
        let (cos, sin) = (cos.narrow(0, start, length), sin.narrow(0, start, length));
        let (angles, seen) = (Angles { cos: &cos, sin: &sin }, Seen { block: None, bias });
        attention(heads, [HEADS; 2], Positions::From(0), angles, seen)
    };
    let together = run([&all; 3], [0, HEADS, 2 * HEADS], 0, None);
    let parts = [0, 1, 2].map(|n| all.narrow(2, n * HEADS, HEADS));
    let apart = run([&parts[0], &parts[1], &parts[2]], [0; 3], 0, None);
    assert_eq!(bits(&together), bits(&apart));
    let bias = Tensor::zeros([2, 1, 1, keys], (Kind::Float, Device::Cpu));
    drop(bias.narrow(3, 0, 4).fill_(f64::NEG_INFINITY));
    let padded = run([&all; 3], [0, HEADS, 2 * HEADS], 0, Some(&bias)).narrow(1, 4, keys - 4);
    let cut = all.narrow(1, 4, keys - 4);
    let short = run([&cut; 3], [0, HEADS, 2 * HEADS], 4, None);
    assert_eq!(bits(&padded), bits(&short));
}
