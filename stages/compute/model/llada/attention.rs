//! Attention of a block: by the kernels where they compute, else by libtorch. Knows no weights.

use tch::Tensor;

use super::queries::Queries;
use super::rotation::{Rotation, rotate};
use crate::kernels::{self, Angles, Heads, Positions};
use crate::model::linear::ROWS;

/// The positions of a pass: which are queried, and which no other attends to.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Attended<'a> {
    /// Where the queries are, of which q has one row each.
    pub(in crate::model) queries: &'a Queries,
    pub(in crate::model) rotation: &'a Rotation,
    /// -inf at padding, 0 elsewhere.
    pub(in crate::model) bias_B11L: Option<&'a Tensor>,
    /// Whether libtorch computes a multiple of [`ROWS`] queries, so that a query does not depend on the others.
    pub(in crate::model) is_padded: bool,
}

/// softmax(q k' / sqrt(E)) v, q and k rotated here: B x Q x H x E. Keys are those of all positions.
pub(in crate::model) fn attention(
    [q, k, v]: [Heads<'_>; 3],
    heads: i64,
    at: &Attended<'_>,
) -> Tensor {
    let Attended { queries, rotation, bias_B11L, is_padded } = *at;
    let Rotation { cos, sin } = rotation;
    if kernels::compute(q.of) {
        let positions = match queries {
            Queries::All => Positions::From(0),
            Queries::Range { start, .. } => Positions::From(*start),
            Queries::At(positions_BQ) => Positions::At(positions_BQ),
        };
        return kernels::attention([q, k, v], heads, positions, Angles { cos, sin }, bias_B11L);
    }
    let part = |of: Heads<'_>| of.of.narrow(2, of.first, heads);
    let (batch, length) = (k.of.size()[0], k.of.size()[1]);
    let (cos_q, sin_q) = rotation.at(queries, batch, length);
    let (q_BQHE, k_BLHE) = (rotate(&part(q), &cos_q, &sin_q), rotate(&part(k), cos, sin));
    by_libtorch([&q_BQHE, &k_BLHE, &part(v)], bias_B11L, is_padded)
}

fn by_libtorch([q_BQHE, k, v]: [&Tensor; 3], bias: Option<&Tensor>, is_padded: bool) -> Tensor {
    let by_head = |t: &Tensor| t.transpose(1, 2);
    let queries = q_BQHE.size()[1];
    let spare = if is_padded { (-queries).rem_euclid(ROWS) } else { 0 };
    let attention = |q_BQHE: &Tensor| {
        let (q, k, v) = (by_head(q_BQHE), by_head(k), by_head(v));
        Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None::<f64>, false)
            .transpose(1, 2)
    };
    if spare == 0 {
        return attention(q_BQHE);
    }
    attention(&q_BQHE.constant_pad_nd([0, 0, 0, 0, 0, spare])).narrow(1, 0, queries)
}
