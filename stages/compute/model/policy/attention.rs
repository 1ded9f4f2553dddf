//! Attention of a block: by the kernels where they compute, else by libtorch. Knows no weights.

use tch::{Kind, Tensor};

use super::queries::Queries;
use super::rotation::{Rotation, rotate};
use crate::kernels::{self, Angles, Heads, Positions, Seen};
use crate::model::linear::ROWS;

/// The positions of a pass: which are queried, and which no other attends to.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Attended<'a> {
    /// Where the queries are, of which q has one row each.
    pub(in crate::model) queries: &'a Queries,
    pub(in crate::model) rotation: &'a Rotation,
    /// Tokens of a block, where queries see no block behind their own.
    pub(in crate::model) block: Option<i64>,
    /// -inf at what is not attended to, 0 elsewhere: B x 1 x 1 x L, of padding alone; where libtorch computes blocks,
    /// B x 1 x L x L.
    pub(in crate::model) bias: Option<&'a Tensor>,
    /// Whether libtorch computes a multiple of [`ROWS`] queries, so that a query does not depend on the others.
    pub(in crate::model) is_padded: bool,
}

/// softmax(q k' / sqrt(E)) v, q and k rotated here: B x Q x H x E. Keys are those of all positions; each of the K heads of
/// keys and values serves H / K of queries.
pub(in crate::model) fn attention(
    [q, k, v]: [Heads<'_>; 3],
    [heads, kv_heads]: [i64; 2],
    at: &Attended<'_>,
) -> Tensor {
    let Attended { queries, rotation, block, bias, is_padded } = *at;
    let Rotation { cos, sin } = rotation;
    if kernels::compute(q.of) {
        let positions = match queries {
            Queries::All => Positions::From(0),
            Queries::Range { start, .. } => Positions::From(*start),
            Queries::At(positions_BQ) => Positions::At(positions_BQ),
        };
        let (heads, angles) = ([heads, kv_heads], Angles { cos, sin });
        return kernels::attention([q, k, v], heads, positions, angles, Seen { block, bias });
    }
    let part = |of: Heads<'_>, count| of.of.narrow(2, of.first, count);
    let (batch, length) = (k.of.size()[0], k.of.size()[1]);
    let (cos_q, sin_q) = rotation.at(queries, batch, length);
    let q_BQHE = rotate(&part(q, heads), &cos_q, &sin_q);
    let k_BLKE = rotate(&part(k, kv_heads), cos, sin);
    let bias = bias.map(|bias| {
        if bias.size()[2] == 1 { bias.shallow_clone() } else { of_queries(bias, queries) }
    });
    by_libtorch([&q_BQHE, &k_BLKE, &part(v, kv_heads)], bias.as_ref(), is_padded)
}

/// Which keys a query does not attend to, B x L x L: padding, and the blocks behind its own, which are counted from the
/// first token. Queries at padding have no result; they see the first block.
pub(in crate::model) fn hidden_from(padded_BL: &Tensor, block: i64) -> Tensor {
    let length = padded_BL.size()[1];
    let padding_B1 = padded_BL.sum_dim_intlist(1, true, Kind::Int64);
    let positions_L = Tensor::arange(length, (Kind::Int64, padded_BL.device()));
    let block_BL = (positions_L - padding_B1).clamp_min(0).floor_divide_scalar(block);
    let behind_BLL = block_BL.unsqueeze(1).gt_tensor(&block_BL.unsqueeze(2));
    behind_BLL.logical_or(&padded_BL.unsqueeze(1))
}

/// The rows of a bias B x 1 x L x L at the queries: B x 1 x Q x L.
fn of_queries(bias_B1LL: &Tensor, queries: &Queries) -> Tensor {
    match queries {
        Queries::All => bias_B1LL.shallow_clone(),
        Queries::Range { start, len } => bias_B1LL.narrow(2, *start, *len),
        Queries::At(positions_BQ) => {
            let (batch, queried) = (positions_BQ.size()[0], positions_BQ.size()[1]);
            let index = positions_BQ.view([batch, 1, queried, 1]);
            let index = index.expand([batch, 1, queried, bias_B1LL.size()[3]], false);
            bias_B1LL.gather(2, &index, false)
        }
    }
}

fn by_libtorch([q_BQHE, k, v]: [&Tensor; 3], bias: Option<&Tensor>, is_padded: bool) -> Tensor {
    let queries = q_BQHE.size()[1];
    let group = q_BQHE.size()[2] / k.size()[2];
    let by_head = |t: &Tensor| t.transpose(1, 2);
    let shared = |t: &Tensor| match group {
        1 => by_head(t),
        _ => by_head(&t.repeat_interleave_self_int(group, 2, None)),
    };
    let spare = if is_padded { (-queries).rem_euclid(ROWS) } else { 0 };
    let attention = |q_BQHE: &Tensor, bias: Option<&Tensor>| {
        let (q, k, v) = (by_head(q_BQHE), shared(k), shared(v));
        Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None::<f64>, false)
            .transpose(1, 2)
    };
    if spare == 0 {
        return attention(q_BQHE, bias);
    }
    let is_by_query = |bias: &&Tensor| bias.size()[2] > 1;
    let longer = bias.filter(is_by_query).map(|bias| bias.constant_pad_nd([0, 0, 0, spare]));
    let q_BQHE = q_BQHE.constant_pad_nd([0, 0, 0, 0, 0, spare]);
    attention(&q_BQHE, longer.as_ref().or(bias)).narrow(1, 0, queries)
}
