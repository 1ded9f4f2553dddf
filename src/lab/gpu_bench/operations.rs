//! Whether the operations that stages use give the same bits twice under strict determinism, forward and backward, and
//! which of the ones that they must not use are refused. The table in docs/gpu.md is checked by it.

use agrpo_compute::Device;
use agrpo_compute::model::Placement;
use agrpo_spec::{Precision, StageError};
use serde::Serialize;
use tch::{Kind, Tensor};

use super::rows::{Rows, caught};

/// Rows and columns of the matrices.
const ROWS: i64 = 192;
const COLUMNS: i64 = 64;

/// What an operation did.
#[derive(Clone, Copy, Debug, Serialize)]
struct Repeated {
    /// Whether it had no deterministic form, and failed.
    refused: bool,
    /// Whether its results and gradients had the same bits twice.
    repeats: bool,
}

/// The inputs of an operation: a leaf of ROWS x COLUMNS, and indices of rows, most of them several times.
struct Given {
    x: Tensor,
    rows: Tensor,
    at: (Kind, tch::Device),
}

impl Given {
    /// Matrices of other shapes, without gradients.
    fn noise(&self, shape: &[i64]) -> Tensor {
        noise(shape, self.at)
    }

    /// `x` as two sequences of heads: 2 x 4 x ROWS / 2 x COLUMNS / 4.
    fn by_head(&self) -> Tensor {
        self.x.view([2, ROWS / 2, 4, COLUMNS / 4]).transpose(1, 2)
    }

    fn attention(&self, queries: i64, bias: Option<&Tensor>) -> Tensor {
        let x = self.by_head();
        let q = x.narrow(2, 0, queries);
        Tensor::scaled_dot_product_attention(&q, &x, &x, bias, 0.0, false, None::<f64>, false)
    }
}

type Operation = fn(&Given) -> Tensor;

/// Those that stages use.
const USED: [(&str, Operation); 23] = [
    ("embedding", |g| Tensor::embedding(&g.x, &g.rows, -1, false, false)),
    ("linear", |g| g.x.linear(&g.noise(&[96, COLUMNS]), None::<&Tensor>)),
    ("linear, weight", |g| g.noise(&[96, COLUMNS]).linear(&g.x, None::<&Tensor>)),
    ("addmm_ of some columns", |g| {
        let mut some = g.noise(&[ROWS, 2 * COLUMNS]).narrow(1, 5, COLUMNS);
        some.addmm_(&g.x, &g.noise(&[COLUMNS, COLUMNS]))
    }),
    ("silu", |g| g.x.silu()),
    ("mean, rsqrt", |g| (&g.x * &g.x).mean_dim(-1, true, g.x.kind()).rsqrt() * &g.x),
    ("roll", |g| g.x.roll([5], [1])),
    ("constant_pad_nd", |g| g.x.constant_pad_nd([0, 0, 0, 3])),
    ("cat, chunk", |g| Tensor::cat(&[&g.x.chunk(2, 1)[1], &g.x], 1)),
    ("masked_fill", |g| g.x.masked_fill(&g.x.gt(0.1), f64::NEG_INFINITY).exp()),
    ("gather", |g| {
        let index = g.rows.view([-1, 1]).expand([ROWS, COLUMNS], false);
        g.x.gather(0, &index, false)
    }),
    ("index_select", |g| g.x.index_select(0, &g.rows)),
    ("index_add", |g| g.noise(&[ROWS, COLUMNS]).index_add(0, &g.rows, &g.x)),
    ("index_copy", |g| {
        let places = Tensor::arange(ROWS, (Kind::Int64, g.at.1)).flip([0]);
        g.noise(&[ROWS, COLUMNS]).index_copy(0, &places, &g.x)
    }),
    ("log_softmax", |g| g.x.to_kind(Kind::Float).log_softmax(-1, Kind::Float)),
    ("logsumexp", |g| g.x.to_kind(Kind::Float).logsumexp([-1], false)),
    ("softmax, sums in f64", |g| {
        let distance = &g.x - g.x.detach().amax(-1, true);
        let sums = distance.exp().sum_dim_intlist(-1, true, Kind::Double);
        &distance - sums.log().to_kind(g.x.kind())
    }),
    ("clamp, minimum, exp", |g| g.x.exp().clamp(0.8, 1.2).minimum(&g.x)),
    ("where", |g| g.x.where_self(&g.x.gt(0.0), &(&g.x * 2.0))),
    ("sum in f64", |g| g.x.sum(Kind::Double)),
    ("attention", |g| g.attention(ROWS / 2, None)),
    ("attention, some queries", |g| g.attention(8, None)),
    ("attention, padding", |g| {
        let bias = Tensor::zeros([2, 1, 1, ROWS / 2], g.at);
        drop(bias.narrow(3, 0, 3).fill_(f64::NEG_INFINITY));
        g.attention(8, Some(&bias))
    }),
];

/// Those that select, without a gradient.
const SELECTING: [(&str, Operation); 5] = [
    ("max", |g| g.x.max()),
    ("argmax", |g| g.x.argmax(1, true)),
    ("topk, values", |g| g.x.topk(7, -1, true, true).0),
    ("sort, values", |g| g.x.sort(-1, true).0),
    ("any", |g| g.x.gt(0.9).any()),
];

/// Those that have no deterministic form on a GPU.
const REFUSED: [(&str, Operation); 2] = [
    ("cumsum", |g| g.x.cumsum(-1, g.x.kind())),
    ("put_", |g| {
        let places = Tensor::arange(ROWS, (Kind::Int64, g.at.1));
        g.noise(&[ROWS, COLUMNS]).put_(&places, &g.x.get(0).repeat([3]), true)
    }),
];

/// Reports a row for each operation in f32 and in bf16. The device has to be under strict determinism.
pub fn operations(device: Device, rows: &mut Rows<'_>) {
    for (precision, named) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
        let Placement { device, kind } = Placement::on(device, precision);
        let at = (kind, device);
        let used = USED.iter().map(|(name, of)| (name, of, true));
        let selecting = SELECTING.iter().map(|(name, of)| (name, of, false));
        for (name, operation, has_gradient) in used.chain(selecting) {
            let row = format!("{name}, {named}");
            rows.add_checked(
                &row,
                |_| twice(operation, has_gradient, at),
                |found| (!found.repeats).then(|| "other bits at the second time".to_owned()),
            );
        }
        for (name, operation) in REFUSED {
            // Not used: whether it is refused is reported, and nothing depends on it.
            rows.add(&format!("not used: {name}, {named}"), |_| {
                match twice(&operation, false, at) {
                    Err(error) if error.to_string().contains("deterministic") => {
                        Ok(Repeated { refused: true, repeats: false })
                    }
                    found => found,
                }
            });
        }
    }
}

fn twice(
    operation: &Operation,
    has_gradient: bool,
    at: (Kind, tch::Device),
) -> Result<Repeated, StageError> {
    let bits = || {
        let x = noise(&[ROWS, COLUMNS], at).set_requires_grad(has_gradient);
        let numbers: Vec<i64> = (0..ROWS).map(|n| n * n % 23).collect();
        let rows = Tensor::from_slice(&numbers).to_device(at.1);
        let given = Given { x, rows, at };
        let result = operation(&given);
        let mut all = vec![result.detach()];
        if has_gradient {
            let weights = noise(&result.size(), (result.kind(), at.1));
            (result * weights).sum(Kind::Float).backward();
            all.push(given.x.grad());
        }
        all.iter().map(|tensor| tensor.to_device(tch::Device::Cpu)).collect::<Vec<_>>()
    };
    let run = || caught(|| Ok(bits()));
    let (first, second) = (run()?, run()?);
    let same = |(a, b): (&Tensor, &Tensor)| has_same_bits(a, b);
    Ok(Repeated { refused: false, repeats: first.iter().zip(&second).all(same) })
}

/// Whether two results of one operation are equal to the bit, so 0 is not -0. A NaN has other bits than itself only where
/// it was computed otherwise.
fn has_same_bits(a: &Tensor, b: &Tensor) -> bool {
    let bytes = |t: &Tensor| t.contiguous().flatten(0, -1).view_dtype(Kind::Uint8);
    a.kind() == b.kind() && a.size() == b.size() && bytes(a).equal(&bytes(b))
}

/// Numbers from -1 to 1 without an order, made on the processor.
fn noise(shape: &[i64], (kind, device): (Kind, tch::Device)) -> Tensor {
    let count = shape.iter().product::<i64>();
    let index = Tensor::arange(count, (Kind::Double, tch::Device::Cpu));
    (index * 12.9898 + 0.5).sin().view(shape).to_kind(kind).to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_repeat_only_to_the_bit() {
        let of = |bits: &[u32]| -> Tensor {
            let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
            Tensor::from_slice(&values)
        };
        let nan = f32::NAN.to_bits();
        let same = |a: &[u32], b: &[u32]| has_same_bits(&of(a), &of(b));
        assert!(same(&[1, nan, 0x8000_0000], &[1, nan, 0x8000_0000]));
        assert!(!same(&[0], &[0x8000_0000]), "0 and -0");
        assert!(!same(&[nan], &[nan + 1]), "NaNs of other origins");
        assert!(!same(&[1], &[1, 1]));
        for kind in [Kind::BFloat16, Kind::Double, Kind::Int64, Kind::Bool] {
            let (one, other) = (of(&[0, 0x3f80_0000]), of(&[0, 0]));
            assert!(has_same_bits(&one.to_kind(kind), &one.to_kind(kind)), "{kind:?}");
            assert!(!has_same_bits(&one.to_kind(kind), &other.to_kind(kind)), "{kind:?}");
            // A whole reduced to one number, and a view that is not in order.
            assert!(has_same_bits(&one.to_kind(kind).max(), &one.to_kind(kind).max()));
            let square = one.to_kind(kind).repeat([2, 1]);
            assert!(has_same_bits(&square.transpose(0, 1), &square.transpose(0, 1).contiguous()));
        }
    }
}
