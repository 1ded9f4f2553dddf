//! The rotary embedding (Su et al., arXiv 2104.09864): tables of angles, and the rotation of queries and keys.

use tch::{Device, Kind, Tensor};

use super::queries::Queries;

/// cos and sin for the rotary embedding, each L x 1 x E, doubled over the two halves.
#[derive(Debug)]
pub(in crate::model) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Rotation {
    /// Angles `position * theta^(-2i/E)`, in f64 and rounded once to `kind` (Su et al., arXiv 2104.09864).
    pub(in crate::model) fn new(
        (head_size, theta): (i64, f64),
        length: i64,
        (kind, device): (Kind, Device),
    ) -> Self {
        let half = head_size / 2;
        let (mut cos, mut sin) = (vec![], vec![]);
        let speeds: Vec<f64> =
            (0..half).map(|i| libm::pow(theta, -(i as f64) / half as f64)).collect();
        for position in 0..length {
            let angles = || speeds.iter().map(|speed| position as f64 * speed);
            let (cosines, sines): (Vec<_>, Vec<_>) =
                angles().map(|angle| (libm::cos(angle), libm::sin(angle))).unzip();
            cos.extend([&cosines[..], &cosines[..]].concat());
            sin.extend(sines.iter().map(|sine| -sine));
            sin.extend(sines);
        }
        let table = |values: &[f64]| {
            Tensor::from_slice(values).to_kind(kind).view([length, 1, 2 * half]).to(device)
        };
        Self { cos: table(&cos), sin: table(&sin) }
    }

    /// The tables at the queried positions, broadcastable against B x Q x H x E.
    pub(super) fn at(&self, queries: &Queries, batch: i64, length: i64) -> (Tensor, Tensor) {
        let pick = |table: &Tensor| match queries {
            Queries::All => table.narrow(0, 0, length),
            Queries::Range { start, len } => table.narrow(0, *start, *len),
            Queries::At(positions_BQ) => {
                let e = table.size()[2];
                table.index_select(0, &positions_BQ.flatten(0, -1)).view([batch, -1, 1, e])
            }
        };
        (pick(&self.cos), pick(&self.sin))
    }
}

/// The rotary embedding, first and second half of a head paired; `sin` carries the sign. Half precision
/// is rotated in f32, as in LLaDA's own code.
pub(super) fn rotate(x_BLHE: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let half = x_BLHE.size()[3] / 2;
    let kind = x_BLHE.kind();
    let x_BLHE = x_BLHE.to_kind(cos.kind());
    (&x_BLHE * cos + x_BLHE.roll([half], [3]) * sin).to_kind(kind)
}
