//! The queried positions of a batch of sequences.

use tch::{Device, Tensor};

use crate::tensors::upload;

/// The positions whose predictions are wanted.
#[derive(Debug)]
pub enum Queries {
    /// Every position.
    All,
    /// Positions `start..start + len` of every sequence.
    Range {
        /// First position.
        start: i64,
        /// How many.
        len: i64,
    },
    /// Q positions for each sequence, an i64 tensor of B x Q.
    At(Tensor),
}

impl Queries {
    /// The same on a device.
    pub(super) fn on(&self, device: Device) -> Self {
        match self {
            Self::All => Self::All,
            Self::Range { start, len } => Self::Range { start: *start, len: *len },
            Self::At(positions_BQ) => Self::At(upload(positions_BQ, device)),
        }
    }
}

/// The rows of B x L x D at the queried positions: B x Q x D.
pub(super) fn select(x_BLD: &Tensor, queries: &Queries) -> Tensor {
    match queries {
        Queries::All => x_BLD.shallow_clone(),
        Queries::Range { start, len } => x_BLD.narrow(1, *start, *len),
        Queries::At(positions_BQ) => {
            let (batch, queried) = (positions_BQ.size()[0], positions_BQ.size()[1]);
            let index = positions_BQ.unsqueeze(-1).expand([batch, queried, x_BLD.size()[2]], false);
            x_BLD.gather(1, &index, false)
        }
    }
}
