//! The queried positions of a batch of sequences.

use tch::{Device, Kind, Tensor};

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
    /// Each one's row before it, in sequences of L positions; the first one's is its own.
    pub(super) fn before(&self, batch: i64, length: i64) -> Self {
        match self {
            Self::Range { start, len } if *start > 0 => Self::Range { start: start - 1, len: *len },
            Self::Range { start, len } => Self::rows_before(batch, *start, *len),
            Self::All => Self::rows_before(batch, 0, length),
            Self::At(positions_BQ) => Self::At(before(positions_BQ)),
        }
    }

    fn rows_before(batch: i64, start: i64, len: i64) -> Self {
        let positions_Q = Tensor::arange_start(start, start + len, (Kind::Int64, Device::Cpu));
        Self::At(before(&positions_Q).unsqueeze(0).expand([batch, len], false).contiguous())
    }

    /// The same on a device.
    pub(super) fn on(&self, device: Device) -> Self {
        match self {
            Self::All => Self::All,
            Self::Range { start, len } => Self::Range { start: *start, len: *len },
            Self::At(positions_BQ) => Self::At(upload(positions_BQ, device)),
        }
    }
}

/// Each position's row before it; the first one's is its own.
pub(super) fn before(positions: &Tensor) -> Tensor {
    (positions - 1).clamp_min(0)
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
