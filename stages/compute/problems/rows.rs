//! The rows of a dataset from a spec's inputs, in whichever format its first bytes show.

use agrpo_grading::{Format, Row, rows};
use agrpo_spec::{ArtifactDigest, Inputs, StageError, lfs_pointer};

use crate::error::data;

/// Reads all rows. Data error that names `key`, the run file's key of the dataset.
pub(super) fn read(
    inputs: &Inputs,
    key: &str,
    digest: ArtifactDigest,
) -> Result<Vec<Row>, StageError> {
    let bytes = inputs.blob(digest)?;
    if let Some(what) = lfs_pointer(bytes) {
        return Err(data(format!("{key} is {what}")));
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let start = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let format = match start {
        _ if bytes.starts_with(b"PAR1") => Format::Parquet,
        Some(b'{' | b'[') | None => Format::JsonLines,
        Some(_) => Format::Csv,
    };
    rows(bytes, format).map_err(|error| data(format!("{key}: {error}")))
}
