//! Errors of this crate's parts, all of them [`StageError`]s: sorted by what the caller must do.

use agrpo_spec::StageError;

use crate::tasks::TaskError;
use crate::tokenizer::TokenizerError;

/// An input that is not what the spec says.
pub(crate) fn data(message: impl Into<String>) -> StageError {
    StageError::Data(message.into())
}

/// A spec that this program cannot compute.
pub(crate) fn invalid(message: impl Into<String>) -> StageError {
    StageError::Invalid(message.into())
}

/// A C++ exception, told by libtorch.
pub(crate) fn libtorch(error: &tch::TchError) -> StageError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("unknown");
    StageError::Internal(format!("libtorch failed: {first}"))
}

/// A task without enough problems stays one, however often it is asked.
pub(crate) fn task(error: &TaskError) -> StageError {
    invalid(error.to_string())
}

/// A policy whose tokenizer does not fit what it is given.
pub(crate) fn tokenizer(error: &TokenizerError) -> StageError {
    data(error.to_string())
}
