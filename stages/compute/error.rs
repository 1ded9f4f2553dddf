//! Short constructors of [`StageError`]s, sorted by what the caller must do.

use std::error::Error;

use agrpo_spec::{Message, StageError};

/// The result of a stage, or of a part of one.
pub(crate) type Result<T, E = StageError> = std::result::Result<T, E>;

/// An input that is not what the spec says.
pub(crate) fn data(message: impl Into<Message>) -> StageError {
    StageError::Data(message.into())
}

/// The same, with the error that caused it.
pub(crate) fn data_from(
    text: String,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> StageError {
    StageError::Data(Message::caused_by(text, source))
}

/// A spec that this program cannot compute.
pub(crate) fn invalid(message: impl Into<Message>) -> StageError {
    StageError::Invalid(message.into())
}

/// A defect of this program or of its caller.
pub(crate) fn internal(message: impl Into<Message>) -> StageError {
    StageError::Internal(message.into())
}

/// A C++ exception of libtorch.
pub(crate) fn libtorch(error: tch::TchError) -> StageError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("unknown");
    StageError::Internal(Message::caused_by(format!("libtorch failed: {first}"), error))
}

#[cfg(test)]
mod tests {
    use tch::TchError;

    use super::*;

    #[test]
    fn an_exception_is_kept_as_the_source_of_its_first_line() {
        let error = libtorch(TchError::Torch("shapes\nframe #0".to_owned()));
        assert_eq!(error.to_string(), "libtorch failed: Internal torch error: shapes");
        assert!(error.source().is_some_and(<dyn Error>::is::<TchError>));
        assert!(!format!("{error:?}").contains("frame"));
    }
}
