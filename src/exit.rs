//! How the program ends: every exit code, and the only file in which errors become codes. An error is one lower-case
//! sentence with the offending value; hints say what to type next. Prints nothing and does not exit.

use std::fmt;

use agrpo_spec::{ArtifactDigest, RunError, StageError, shown};
use agrpo_store::JobsError;

/// The exit codes; `CODES`, which ends `agrpo --help`, says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Unexpected = 1,
    Usage = 2,
    Differs = 3,
    Unavailable = 4,
    Data = 5,
    StageFailed = 6,
    Interrupted = 130,
}

pub(crate) const CODES: &str = "\
Exit codes:
  0    done
  1    unexpected: a defect of agrpo
  2    the command line, a setting or a file cannot be used
  3    a comparison differs
  4    a service is unreachable, or the machine lacks something
  5    stored data is corrupt or missing
  6    a stage failed for good
  130  stopped before the end; the same command goes on from there";

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Bytes of the longest message that is written as it stands; a longer one echoes what it was given.
const LONGEST: usize = 4096;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// The sentence alone, without hints.
    pub(crate) message: String,
    hints: Vec<String>,
    /// The blob whose loss is the reason, if it is one.
    pub(crate) lost: Option<ArtifactDigest>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: vec![], lost: None }
    }

    /// A request that cannot be met as it is.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something of the user's that is refused, for the reason that the error names.
    pub(crate) fn refused(error: impl ToString) -> Self {
        Self::usage(error.to_string())
    }

    /// Stored data that is corrupt or missing.
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self::new(Exit::Data, message)
    }

    /// A service that is away, or something that the machine lacks.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// A defect of the program.
    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Exit::Unexpected, message)
    }

    /// Adds a line that says what to do, preferably a command to type.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn hint_if(self, applies: bool, hint: impl Into<String>) -> Self {
        if applies { self.hint(hint) } else { self }
    }

    /// Adds such a line to a failure of this code.
    pub(crate) fn hint_on(self, exit: Exit, hint: impl Into<String>) -> Self {
        let applies = self.exit == exit;
        self.hint_if(applies, hint)
    }

    /// Puts words in front of the message.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

/// The defect that something failed which cannot fail by what the user does.
pub(crate) fn cannot<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::unexpected(format!("cannot {what}: {error}"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.len() {
            length if length > LONGEST => write!(f, "error: {}", shown(&self.message, LONGEST))?,
            _ => write!(f, "error: {}", self.message)?,
        }
        for (index, hint) in self.hints.iter().enumerate() {
            write!(f, "{}hint: {hint}", if index == 0 { "\n\n" } else { "\n" })?;
        }
        Ok(())
    }
}

impl From<JobsError> for Failure {
    fn from(error: JobsError) -> Self {
        let exit = match error {
            JobsError::Invalid(_) | JobsError::Ambiguous(_) | JobsError::Misconfigured { .. } => {
                Exit::Usage
            }
            JobsError::Unavailable(_) | JobsError::Device(_) => Exit::Unavailable,
            JobsError::Data(_) | JobsError::Incompatible(_) | JobsError::Lost { .. } => Exit::Data,
            JobsError::Failed(_) | JobsError::Refused(_) => Exit::StageFailed,
            JobsError::Internal(_) => Exit::Unexpected,
        };
        let lost = if let JobsError::Lost { digest, .. } = error { Some(digest) } else { None };
        Self { lost, ..Self::new(exit, error.to_string()) }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        let exit = match error {
            StageError::Invalid(_) => Exit::Usage,
            StageError::Data(_) => Exit::Data,
            StageError::Device(_) => Exit::Unavailable,
            StageError::Internal(_) => Exit::Unexpected,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code after this one; a new one does not compile until it is named here.
    fn next(exit: Exit) -> Option<Exit> {
        match exit {
            Exit::Done => Some(Exit::Unexpected),
            Exit::Unexpected => Some(Exit::Usage),
            Exit::Usage => Some(Exit::Differs),
            Exit::Differs => Some(Exit::Unavailable),
            Exit::Unavailable => Some(Exit::Data),
            Exit::Data => Some(Exit::StageFailed),
            Exit::StageFailed => Some(Exit::Interrupted),
            Exit::Interrupted => None,
        }
    }

    #[test]
    fn every_code_is_in_the_help_in_the_readme_and_in_the_guide() {
        let page = |name: &str| {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(root.join(name)).unwrap()
        };
        let (readme, guide) = (page("README.md"), page("docs/guide/troubleshooting.md"));
        for exit in std::iter::successors(Some(Exit::Done), |exit| next(*exit)) {
            let code = exit as u8;
            assert!(CODES.contains(&format!("\n  {code} ")), "{code} is not in the help");
            assert!(readme.contains(&format!("\n| {code} |")), "{code} is not in README.md");
            assert!(
                guide.contains(&format!("\n## {code}: ")),
                "{code} has no heading in the guide"
            );
        }
    }

    #[test]
    fn every_kind_of_error_has_its_code() {
        let code = |error: JobsError| Failure::from(error).exit as u8;
        let text = || agrpo_spec::Message::from("");
        assert_eq!(code(JobsError::Internal(text())), 1);
        assert_eq!(code(JobsError::Invalid(text())), 2);
        assert_eq!(code(JobsError::Ambiguous(text())), 2);
        assert_eq!(code(JobsError::Unavailable(text())), 4);
        let refused = |may_pass| JobsError::Misconfigured { message: text(), may_pass };
        assert_eq!((code(refused(true)), code(refused(false))), (2, 2));
        assert_eq!(code(JobsError::Data(text())), 5);
        assert_eq!(code(JobsError::Incompatible(text())), 5);
        let digest = agrpo_spec::ArtifactDigest::of(b"lost");
        assert_eq!(code(JobsError::Lost { digest, message: text() }), 5);
        assert_eq!(code(JobsError::Device(text())), 4);
        assert_eq!(code(JobsError::Failed(text())), 6);
        assert_eq!(code(JobsError::Refused(text())), 6);
    }
}
