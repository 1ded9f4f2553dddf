//! The rotary embedding (Su et al., arXiv 2104.09864): tables of angles, and the rotation of queries and keys. The tables
//! are kept from pass to pass; a longer pass makes longer ones, whose first rows are the same.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::queries::Queries;

/// cos and sin for the rotary embedding, each L x 1 x E, doubled over the two halves.
#[derive(Debug)]
pub(in crate::model) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// The tables of a policy, shared by all handles on it: one pair, as long as the longest pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotations(Arc<Mutex<Option<Rotation>>>);

impl Rotations {
    /// The tables of [`Rotation::new`].
    pub(super) fn of(&self, head: (i64, f64), length: i64, at: (Kind, Device)) -> Rotation {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &&Rotation| {
            let cos = &kept.cos;
            (cos.kind(), cos.device()) == at && cos.size()[0] >= length
        };
        if let Some(kept) = kept.as_ref().filter(fits) {
            return kept.first(length);
        }
        // Lengths grow token by token; tables twice as long are made a few times at most.
        let longer = u64::try_from(length).unwrap_or(0).next_power_of_two();
        let tables = Rotation::new(head, i64::try_from(longer).unwrap_or(length), at);
        kept.insert(tables).first(length)
    }
}

impl Rotation {
    /// The tables of the first positions, on the same memory.
    pub(super) fn first(&self, length: i64) -> Self {
        Self { cos: self.cos.narrow(0, 0, length), sin: self.sin.narrow(0, 0, length) }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_tables_are_those_of_their_length_and_are_made_once() {
        let (head, at) = ((8, 1e4), (Kind::Float, Device::Cpu));
        let kept = Rotations::default();
        let place = |rotation: &Rotation| rotation.cos.data_ptr();
        for length in [5, 1, 7, 8] {
            let (found, fresh) = (kept.of(head, length, at), Rotation::new(head, length, at));
            assert_eq!((found.cos, found.sin), (fresh.cos, fresh.sin));
        }
        let first = kept.of(head, 8, at);
        assert_eq!(place(&kept.clone().of(head, 3, at)), place(&first));
        let longer = kept.of(head, 9, at);
        assert_ne!(place(&longer), place(&first));
        assert_eq!(longer.cos.narrow(0, 0, 8), first.cos);
        let double = kept.of(head, 8, (Kind::Double, Device::Cpu));
        assert_eq!(double.cos, Rotation::new(head, 8, (Kind::Double, Device::Cpu)).cos);
    }
}
