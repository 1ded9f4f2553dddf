//! Whether the parts of a policy's folder match: configuration, weights, tokenizer. Reads no weights.

use agrpo_spec::{Files, StageError};

use crate::folder;
use crate::model::check_headers;
use crate::text::chat;

/// Whether a folder's configuration, the headers of its weights and its tokenizer match. Of an adapter's folder
/// without a base, only the header is checked. Data error that names file and tensor.
pub fn check_folder(files: &Files) -> Result<(), StageError> {
    let Some(config) = check_headers(files)? else { return Ok(()) };
    match folder::optional(files, "tokenizer.json")? {
        Some(bytes) => chat::check(&bytes, &config),
        None => Ok(()),
    }
}
