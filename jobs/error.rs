//! What can go wrong where and when stages run, sorted by what the caller must do about it.
//!
//! Every message is one line: what failed, where, what was expected and what to do. No message
//! holds a password or a key. This file neither prints nor exits.

/// Why something could not be done. `Display` is one line for people.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JobsError {
    /// The request is wrong: a URL, credentials, a name that fits nothing or too much.
    #[error("{0}")]
    Invalid(String),
    /// A service or a disk did not do its part; the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// Stored data is corrupt, missing or contradicts what was computed.
    #[error("{0}")]
    Data(String),
    /// A defect of this program.
    #[error("{0}")]
    Internal(String),
    /// A stage failed for good.
    #[error("{0}")]
    Failed(String),
}

impl JobsError {
    /// The process's exit status: 1 internal, 2 invalid, 4 unavailable, 5 data, 6 failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::Invalid(_) => 2,
            Self::Unavailable(_) => 4,
            Self::Data(_) => 5,
            Self::Failed(_) => 6,
        }
    }
}
