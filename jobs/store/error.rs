//! What can go wrong where and when stages run, sorted by what the caller must do about it.
//!
//! Every message is one line: what failed, where, what was expected and what to do. No message
//! holds a password or a key: whatever a library said, `redact.rs` has seen it. This file neither prints nor exits.

use std::error::Error;

use agrpo_spec::ArtifactDigest;
use serde::{Deserialize, Serialize};

use crate::redact::text;

/// Where trying again may help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// The same worker may succeed later: a service was away, or an input is being made again.
    Here,
    /// Another machine or a fresh process may succeed: memory, a device, a defect that one met.
    #[default]
    Elsewhere,
    /// No worker can: the spec cannot be computed, or what it computes is no result.
    Never,
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here => "try again here",
            Self::Elsewhere => "try again elsewhere",
            Self::Never => "no other try helps",
        })
    }
}

/// Why something could not be done. `Display` is one line for people.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JobsError {
    /// The request is wrong: a URL, credentials, a name that fits nothing or too much.
    #[error("{}", text(.0))]
    Invalid(String),
    /// A service or a disk did not do its part; the same request may succeed later.
    #[error("{}", text(.0))]
    Unavailable(String),
    /// A service answers and does not do what it is asked: a setting or a right has to change.
    #[error("{}", text(.message))]
    Misconfigured {
        /// What it refuses, why, and what to change.
        message: String,
        /// Between two masters it may be so for a moment: worth trying again for a time.
        may_pass: bool,
    },
    /// Stored data is corrupt, missing or contradicts what was computed.
    #[error("{}", text(.0))]
    Data(String),
    /// A record is whole, and another version of this program wrote it: it is left as it is.
    #[error("{0}")]
    Incompatible(String),
    /// A blob is missing or corrupt; the stage that made it can make it again.
    #[error("{}", text(.message))]
    Lost {
        /// The blob's name.
        digest: ArtifactDigest,
        /// What is wrong, where, and what to do.
        message: String,
    },
    /// A defect of this program.
    #[error("{}", text(.0))]
    Internal(String),
    /// An attempt at a stage failed for a reason that another machine may not have.
    #[error("{}", text(.0))]
    Failed(String),
    /// A stage refuses its spec or gives no usable numbers, on any machine.
    #[error("{}", text(.0))]
    Refused(String),
    /// The device is lost to this process; a new process may find it well.
    #[error("{}", text(.0))]
    Device(String),
}

/// What most of this crate answers with.
pub type Result<T, E = JobsError> = std::result::Result<T, E>;

/// An error and what it comes from, down to the bottom.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// How a blob comes back that a stage made.
pub(crate) const MADE_AGAIN: &str = "agrpo run FILE --repair, with the run's file, makes it again, and so does agrpo replay --rewind";

impl JobsError {
    /// A blob whose bytes are no longer those that were checked, found by who went on reading it.
    pub fn damaged(digest: ArtifactDigest) -> Self {
        let message = format!(
            "cas/{digest} is corrupt: its bytes changed after they were checked; {MADE_AGAIN}"
        );
        Self::Lost { digest, message }
    }

    /// Whether the same request may succeed by itself before long.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Misconfigured { may_pass: true, .. })
    }

    /// Whether it is about this process' services and rights, not about a stage or a run: another worker may do
    /// better.
    pub fn is_of_services(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Invalid(_) | Self::Misconfigured { .. })
    }

    /// Where trying again may help.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) | Self::Data(_) | Self::Lost { .. } => Remedy::Here,
            Self::Invalid(_)
            | Self::Misconfigured { .. }
            | Self::Incompatible(_)
            | Self::Internal(_)
            | Self::Failed(_)
            | Self::Device(_) => Remedy::Elsewhere,
            Self::Refused(_) => Remedy::Never,
        }
    }
}
