//! Computes the operations of the forward pass over all small shapes and compares the bits of a row alone, beside
//! a few rows and beside many. Trains, stores and corrects nothing.
//!
//! Sampler and learner cut their batches differently: the ratio of a fresh trajectory is 1 to the bit only if no row
//! depends on the rows beside it. Matrix libraries promise that only in some modes and on some processors, and change
//! kernels by shape, so every small shape is tried.

use agrpo_spec::Seed;
use tch::{Device, Kind, Tensor, no_grad_guard};

use super::linear::{Linear, Lora, product, wide};
use super::mlp::swiglu;
use super::policy::{Attended, Queries, Rotation, attention, hidden_from, rms_norm};
use crate::kernels::Heads;
use crate::tensors::type_name;

/// Random numbers that all matrices are cut from.
const NUMBERS: i64 = 1 << 14;
/// Heads of an attention, and sequences of one batch.
const HEADS: i64 = 2;
const SEQUENCES: i64 = 3;
/// Tokens of a block of the attention.
const BLOCK: i64 = 3;

/// The results of the small shapes.
#[derive(Debug, Default)]
pub struct RowsReport {
    /// How many were computed.
    pub shapes: u64,
    /// Those in which a row depends on the rows beside it.
    pub failing: Vec<String>,
}

impl RowsReport {
    fn add(&mut self, shape: impl FnOnce() -> String, found: Result<(), String>) {
        self.shapes += 1;
        self.failing.extend(found.err().map(|rows| format!("{}: {rows}", shape())));
    }
}

/// Computes every operation in f32 and bf16 on the processor, with sizes from 1 to `largest` and up to `rows`
/// rows.
pub fn check_rows(largest: i64, rows: i64) -> RowsReport {
    let _no_grad = no_grad_guard();
    let mut report = RowsReport::default();
    for kind in [Kind::Float, Kind::BFloat16] {
        let (all, named) = (numbers(kind), type_name(kind).to_lowercase());
        for inner in 1..=largest {
            let x_NI = cut(&all, inner, &[rows, inner]);
            for outputs in 1..=largest {
                let weight_OxI = cut(&all, outputs * 31, &[outputs, inner]);
                let found = alike(&x_NI, |x| product(x, &weight_OxI));
                report.add(|| format!("{named} product of {inner} by {outputs}"), found);
                if kind == Kind::BFloat16 {
                    let adapted = adapted(&all, (outputs, inner), 1 + (outputs + inner) % 8);
                    let found = alike(&x_NI, |x| adapted.apply(x));
                    report.add(|| format!("{named} adapter of {inner} by {outputs}"), found);
                }
            }
            for (name, function) in BY_ROW {
                report.add(|| format!("{named} {name} of {inner}"), alike(&x_NI, function));
            }
        }
        for head in (2..=largest).step_by(2) {
            for keys in 1..=largest {
                let found = check_attention(&all, head, keys, rows);
                report.add(|| format!("{named} attention to {keys} keys of {head}"), found);
            }
        }
    }
    report
}

/// Two modules in half precision, and adapters in f32.
fn adapted(all: &Tensor, (outputs, inputs): (i64, i64), rank: i64) -> Linear {
    let lora = |start| Lora {
        a_RxI: cut(all, start, &[rank, inputs]),
        b_OxR: cut(all, start + 311, &[outputs, rank]),
        scale: 0.5,
    };
    let mut found = [("a".to_owned(), lora(inputs)), ("b".to_owned(), lora(outputs))].into();
    let weight_OxI = cut(all, outputs * 31, &[2 * outputs, inputs]);
    let modules = ["a", "b"].map(|name| (name.to_owned(), outputs));
    let mut linear = Linear::new(modules.into(), weight_OxI, None);
    linear.adapt(&mut found);
    linear
}

/// An operation on single rows, without a product.
type ByRow = fn(&Tensor) -> Tensor;
const BY_ROW: [(&str, ByRow); 3] = [
    ("rms_norm", |x| rms_norm(x, &x.get(0).ones_like(), 1e-5)),
    ("swiglu", |x| swiglu(&Tensor::cat(&[x, x], -1))),
    ("log_softmax", |x| x.to_kind(Kind::Float).log_softmax(-1, Kind::Float)),
];

/// Queries beside each other, and sequences beside each other; with and without padding, to all keys and in blocks, with
/// heads of keys of their own and shared ones.
fn check_attention(all: &Tensor, head: i64, keys: i64, rows: i64) -> Result<(), String> {
    let padding_B11L = Tensor::zeros([SEQUENCES, 1, 1, keys], (all.kind(), Device::Cpu));
    if keys > 1 {
        drop(padding_B11L.narrow(3, 0, 1).fill_(f64::NEG_INFINITY));
    }
    let padded_BL = padding_B11L.view([SEQUENCES, keys]).isinf();
    let hidden_BLL = hidden_from(&padded_BL, BLOCK);
    let blocks_B1LL = Tensor::zeros(hidden_BLL.size(), (all.kind(), Device::Cpu))
        .masked_fill(&hidden_BLL, f64::NEG_INFINITY)
        .unsqueeze(1);
    // The kernels need padding alone.
    let blocks = if crate::kernels::compute(all) { &padding_B11L } else { &blocks_B1LL };
    let cases = [
        (None, None, HEADS),
        (None, Some(&padding_B11L), HEADS),
        (None, None, 1),
        (Some(BLOCK), Some(blocks), HEADS),
    ];
    cases.into_iter().try_for_each(|case| check_case(all, (head, keys, rows), case))
}

/// Tokens of a block, what is not attended to, and heads of keys.
type Case<'a> = (Option<i64>, Option<&'a Tensor>, i64);

fn check_case(
    all: &Tensor,
    (head, keys, rows): (i64, i64, i64),
    (block, bias, kv_heads): Case<'_>,
) -> Result<(), String> {
    let rotation = Rotation::new((head, 1e4), keys, (wide(all.kind()), Device::Cpu));
    let size = |heads| [SEQUENCES, keys, heads, head];
    let (k_BLKE, v_BLKE) = (cut(all, head, &size(kv_heads)), cut(all, head + 577, &size(kv_heads)));
    let attention = |[q, k, v]: [&Tensor; 3], queries: &Queries, bias: Option<&Tensor>| {
        let is_padded = !matches!(queries, Queries::All);
        let at = Attended { queries, rotation: &rotation, block, bias, is_padded };
        attention([q, k, v].map(|of| Heads { of, first: 0 }), [HEADS, kv_heads], &at)
    };
    let one = |tensor: &Tensor| tensor.narrow(0, 0, 1);
    let (k, v, mask) = (one(&k_BLKE), one(&v_BLKE), bias.map(one));
    alike(&cut(all, keys, &[rows, HEADS, head]), |q_QHE| {
        let positions = Tensor::zeros([1, q_QHE.size()[0]], (Kind::Int64, Device::Cpu));
        let q = q_QHE.unsqueeze(0);
        attention([&q, &k, &v], &Queries::At(positions), mask.as_ref()).squeeze_dim(0)
    })?;
    let q_BLHE = cut(all, head + 1201, &size(HEADS));
    let whole = bits(&attention([&q_BLHE, &k_BLKE, &v_BLKE], &Queries::All, bias));
    for n in 0..SEQUENCES {
        let of = |tensor: &Tensor| tensor.narrow(0, n, 1).copy();
        let mask = bias.map(of);
        let (q, k, v) = (of(&q_BLHE), of(&k_BLKE), of(&v_BLKE));
        if bits(&attention([&q, &k, &v], &Queries::All, mask.as_ref())) != whole.narrow(0, n, 1) {
            return Err(format!("sequence {n} of {SEQUENCES}"));
        }
    }
    Ok(())
}

/// Whether every run of rows of `x` gives the same as among all of them; names the first that does not.
fn alike(x: &Tensor, function: impl Fn(&Tensor) -> Tensor) -> Result<(), String> {
    let rows = x.size()[0];
    let whole = bits(&function(x));
    for count in 1..rows {
        // A row comes first, last and in between.
        let start = count * 5 % (rows - count + 1);
        let found = bits(&function(&x.narrow(0, start, count).copy()));
        if found != whole.narrow(0, start, count) {
            let end = start + count;
            return Err(format!("rows {start}..{end} of {rows}"));
        }
    }
    Ok(())
}

fn numbers(kind: Kind) -> Tensor {
    let seed = Seed::new(1);
    let number = |n: u32| 2.0 * seed.uniform(n, 0) - 1.0;
    let values: Vec<f64> = (0..u32::try_from(NUMBERS).unwrap_or(u32::MAX)).map(number).collect();
    Tensor::from_slice(&values).to_kind(kind)
}

/// A tensor of its own from the numbers, starting at one of them.
fn cut(all: &Tensor, start: i64, size: &[i64]) -> Tensor {
    let count = size.iter().product::<i64>();
    let places =
        (Tensor::arange(count, (Kind::Int64, Device::Cpu)) + start * 97).remainder(NUMBERS);
    all.index_select(0, &places).view(size)
}

/// The bits of a tensor's numbers, since zeros of either sign compare equal.
fn bits(tensor: &Tensor) -> Tensor {
    let tensor = tensor.contiguous();
    let kind = if tensor.kind() == Kind::Float { Kind::Int } else { Kind::Int16 };
    tensor.view_dtype(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_depends_on_the_rows_beside_it() {
        crate::use_one_thread();
        let RowsReport { shapes, failing } = check_rows(32, 19);
        assert_eq!(shapes, 2 * (32 * 32 + 3 * 32 + 16 * 32) + 32 * 32);
        assert!(failing.is_empty(), "{} shapes: {failing:#?}", failing.len());
    }
}
