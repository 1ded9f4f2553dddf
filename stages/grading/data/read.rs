//! Bytes to rows: chooses the format's reader, and refuses an empty file, a Git LFS pointer and a set without rows.

use agrpo_spec::{lfs_pointer, utf_8};
use bytes::Bytes;

use super::row::{DataError, Row};
use super::{columns, csv, json};

/// How a data set is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; blank lines are passed over.
    JsonLines,
    /// As Hugging Face serves most sets.
    Parquet,
    /// With a line of names first; every field is text.
    Csv,
}

impl Format {
    /// By the end of a file's name: `.jsonl` or `.json`, `.parquet`, `.csv`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, end) = name.rsplit_once('.')?;
        match end.to_ascii_lowercase().as_str() {
            "jsonl" | "json" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// The rows of a data set, in their order; at least one.
///
/// # Errors
/// Where the bytes are not of that format, with the row where one can be named; where a row or all of them
/// are larger than their bounds; where there is none.
pub fn rows(bytes: &Bytes, format: Format) -> Result<Vec<Row>, DataError> {
    let refuse = |reason: String| DataError::Format { format: "the data set", reason };
    if let Some(pointer) = lfs_pointer(bytes) {
        return Err(refuse(format!("it is {pointer}")));
    }
    if bytes.is_empty() {
        return Err(refuse("the file is empty (0 bytes)".to_owned()));
    }
    // Some programs put a mark of byte order first, which would become part of a name.
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let rows = match format {
        Format::Parquet => columns::rows(bytes)?,
        Format::JsonLines => json::rows(utf_8(text).map_err(refuse)?.as_bytes())?,
        Format::Csv => csv::rows(utf_8(text).map_err(refuse)?.as_bytes())?,
    };
    if rows.is_empty() {
        return Err(refuse("it has no rows: expected at least one".to_owned()));
    }
    Ok(rows)
}
