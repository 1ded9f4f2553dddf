//! The errors of jobs, sorted by what the caller must do about them.
//!
//! Every message is one line: what failed, where, what was expected and what to do. `Display` passes it through
//! `redact.rs`, so it shows no password and no key. `source()` is the library's own error, for code that has to
//! classify it: it may hold a password, so it is printed only through `redact.rs`. This file neither prints nor exits.

use std::error::Error;

use agrpo_spec::{ArtifactDigest, Message};
use serde::{Deserialize, Serialize};

use crate::{paths, redact::text};

/// Where trying again may help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// The same worker may succeed later: a service was unavailable, or an input is being computed again.
    Here,
    /// Another machine or a fresh process may succeed: memory, a device, a defect on this machine.
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

/// Why an operation failed. `Display` is one line for people.
#[derive(Clone, Debug)]
pub enum JobsError {
    /// The request is wrong: a URL, credentials, a name that fits nothing.
    Invalid(Message),
    /// A text fits several things.
    Ambiguous(Message),
    /// A service or a disk did not do its part; the same request may succeed later.
    Unavailable(Message),
    /// A service answers and refuses: a setting or a right has to change.
    Misconfigured {
        /// What it refuses, why, and what to change.
        message: Message,
        /// Whether another try may help: during a failover the refusal is temporary.
        may_pass: bool,
    },
    /// Stored data is corrupt, missing or contradicts what was computed.
    Data(Message),
    /// A record is whole, and another version of this program wrote it: it is left as it is.
    Incompatible(Message),
    /// A blob is missing or corrupt; the stage that made it can make it again.
    Lost {
        /// The blob's name.
        digest: ArtifactDigest,
        /// What is wrong, where, and what to do.
        message: Message,
    },
    /// A defect of this program.
    Internal(Message),
    /// An attempt at a stage failed for a reason that another machine may not have.
    Failed(Message),
    /// A stage refuses its spec or gives no usable numbers, on any machine.
    Refused(Message),
    /// The device is lost to this process; a new process may find it well.
    Device(Message),
}

impl std::fmt::Display for JobsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text(self.message()))
    }
}

impl Error for JobsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.message().source()
    }
}

/// Functions that make an error of a text, or of a [`Message`] with the error that caused it.
macro_rules! constructors {
    ($($name:ident: $variant:ident,)+) => {
        impl JobsError {$(
            #[doc = concat!("[`Self::", stringify!($variant), "`] with this message.")]
            pub fn $name(message: impl Into<Message>) -> Self {
                Self::$variant(message.into())
            }
        )+}
    };
}

constructors! {
    invalid: Invalid,
    ambiguous: Ambiguous,
    unavailable: Unavailable,
    data: Data,
    incompatible: Incompatible,
    internal: Internal,
    failed: Failed,
    refused: Refused,
}

/// The result of most functions of this crate.
pub type Result<T, E = JobsError> = std::result::Result<T, E>;

/// The value, or why this record cannot be read: it is damaged, or another version's. An error where the store cannot
/// be read.
pub fn readable<T>(found: Result<T>) -> Result<Result<T>> {
    match found {
        Ok(_) | Err(JobsError::Data(_) | JobsError::Incompatible(_)) => Ok(found),
        Err(error) => Err(error),
    }
}

/// An error and its causes, the outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// How to recompute a blob that a stage made.
pub(crate) const MADE_AGAIN: &str = "agrpo run FILE --repair, with the run's file, makes it again, and so does agrpo replay --rewind";

impl JobsError {
    /// A blob whose bytes changed after they were checked.
    pub fn damaged(digest: ArtifactDigest) -> Self {
        let name = paths::blob(digest);
        let message =
            format!("{name} is corrupt: its bytes changed after they were checked; {MADE_AGAIN}");
        Self::Lost { digest, message: message.into() }
    }

    fn message(&self) -> &Message {
        match self {
            Self::Invalid(message)
            | Self::Ambiguous(message)
            | Self::Unavailable(message)
            | Self::Misconfigured { message, .. }
            | Self::Data(message)
            | Self::Incompatible(message)
            | Self::Lost { message, .. }
            | Self::Internal(message)
            | Self::Failed(message)
            | Self::Refused(message)
            | Self::Device(message) => message,
        }
    }

    /// Whether the same request may succeed by itself before long.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Misconfigured { may_pass: true, .. })
    }

    /// Whether it is about the services and rights of this process, not about a stage or a run: another worker may
    /// succeed.
    pub fn is_of_services(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Invalid(_) | Self::Misconfigured { .. })
    }

    /// Where trying again may help.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) | Self::Data(_) | Self::Lost { .. } => Remedy::Here,
            Self::Refused(_) => Remedy::Never,
            _ => Remedy::Elsewhere,
        }
    }
}
