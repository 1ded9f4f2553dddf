//! Short constructors of [`StageError`]s, sorted by what the caller must do.

use agrpo_spec::StageError;

/// What a stage, or a part of one, answers with.
pub(crate) type Result<T, E = StageError> = std::result::Result<T, E>;

/// An input that is not what the spec says.
pub(crate) fn data(message: impl Into<String>) -> StageError {
    StageError::Data(message.into())
}

/// A spec that this program cannot compute.
pub(crate) fn invalid(message: impl Into<String>) -> StageError {
    StageError::Invalid(message.into())
}

/// A C++ exception of libtorch.
pub(crate) fn libtorch(error: tch::TchError) -> StageError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("unknown");
    StageError::Internal(format!("libtorch failed: {first}"))
}
