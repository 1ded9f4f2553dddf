//! TOML to a configuration or to a document that can be edited; errors are one line.

use toml_edit::DocumentMut;

use super::config::RunConfig;
use super::error::RunError;
use super::suggestions::{explained, plain};

/// Bytes of the longest run file; ours have a few thousand. The readers of TOML take a few hundred times
/// as much memory as what they read.
const LONGEST: usize = 1 << 20;

fn check_length(text: &str) -> Result<(), RunError> {
    match text.len() {
        length if length > LONGEST => Err(RunError::Syntax(format!(
            "{length} bytes, expected at most {LONGEST}: this is no run file"
        ))),
        _ => Ok(()),
    }
}

/// Reads a run file, unchecked.
pub(super) fn read_config(text: &str) -> Result<RunConfig, RunError> {
    check_length(text)?;
    toml::from_str(text).map_err(|error| RunError::Syntax(explained(&error, text)))
}

/// Reads a run file with its comments and its layout.
pub(super) fn read_document(text: &str) -> Result<DocumentMut, RunError> {
    check_length(text)?;
    text.parse().map_err(|error: toml_edit::TomlError| RunError::Syntax(plain(error.message())))
}
