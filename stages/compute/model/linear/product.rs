//! Products of rows with a matrix, of which no row depends on the others. Knows no adapter.

use tch::{Device, Kind, Tensor};

use crate::kernels;

/// libtorch multiplies rows in multiples of this many. Its libraries treat the rows that are left over
/// differently: without this, the result of a row would depend on how many others are computed with it, and the
/// learner's log-probabilities would differ from the sampler's in the last bit.
pub(in crate::model) const ROWS: i64 = 8;

/// libtorch multiplies matrices of half precision with one library up to this many multiplications, and with
/// another one above. Rows are added until all of them count as large.
const SMALL_IN_HALF: i64 = 16 * 16 * 16;

/// The kind in which norms and rotations of half precision are computed.
pub(in crate::model) fn wide(kind: Kind) -> Kind {
    match kind {
        Kind::BFloat16 | Kind::Half => Kind::Float,
        _ => kind,
    }
}

/// x W', ... x I to ... x O. A row does not depend on the other rows.
pub(in crate::model) fn product(x: &Tensor, weight_OxI: &Tensor) -> Tensor {
    if kernels::compute(x) {
        return kernels::linear(x, weight_OxI);
    }
    let mut size = x.size();
    let inputs = size.pop().unwrap_or(1);
    let rows: i64 = size.iter().product();
    let outputs = weight_OxI.size()[0];
    size.push(outputs);
    let x_NI = x.reshape([rows, inputs]);
    let y_NO = with_spare_rows(&x_NI, inputs * outputs).linear(weight_OxI, None::<&Tensor>);
    // A part of rows would cost a copy in the backward pass.
    let y_NO = if y_NO.size()[0] == rows { y_NO } else { y_NO.narrow(0, 0, rows) };
    y_NO.view(&size[..])
}

/// The rows, and as many more as libtorch needs so that none depends on the others. `smallest` is the fewest
/// multiplications that a row takes in a product of them.
pub(super) fn with_spare_rows(x_NI: &Tensor, smallest: i64) -> Tensor {
    let rows = x_NI.size()[0];
    let is_half = wide(x_NI.kind()) != x_NI.kind() && x_NI.device() == Device::Cpu;
    let least = if is_half { SMALL_IN_HALF / smallest + 1 } else { rows };
    let spare = (least - rows).max(0) + (-rows.max(least)).rem_euclid(ROWS);
    if spare == 0 { x_NI.shallow_clone() } else { x_NI.constant_pad_nd([0, 0, 0, spare]) }
}
