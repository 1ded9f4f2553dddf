//! Published data sets: rows of JSON lines, Parquet or CSV, and the problems that they hold.
//!
//! Bytes come in, so nothing here opens a file. Every layout that the public sets use is read; a row that
//! fits none is an error that names row and field, and is never skipped. Not done: the shuffle of HF
//! datasets (NumPy's PCG64), by which d1 orders its training rows and sets the last 500 aside.

use agrpo_spec::utf_8;
use bytes::Bytes;

mod columns;
mod csv;
mod json;
mod layouts;
mod pages;
mod row;
mod selection;

pub use json::{Columns, json_columns, json_object};
pub(crate) use layouts::is_number;
pub use layouts::problem;
pub use row::{DataError, LONGEST_ROW, Row};
pub use selection::{Placed, evaluation_problems, training_problems};

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

/// The rows of a data set, in their order; at least one. Error if the bytes are not of that format, with the row if one
/// can be named; if a row or all of them exceed their bounds; if there is no row.
pub fn rows(bytes: &Bytes, format: Format) -> Result<Vec<Row>, DataError> {
    let refuse = |reason: String| DataError::Format { format: "the data set", reason };
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

#[cfg(test)]
mod tests;
