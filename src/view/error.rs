//! Errors of this crate, sorted by what the caller must do.

use agrpo_store::JobsError;

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The store says why.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// A result is not what its stage should have left: it has to be made again.
    #[error("{0}")]
    Data(String),
    /// A defect.
    #[error("cannot draw the chart: {0}")]
    Drawing(String),
}
