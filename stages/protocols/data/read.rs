//! Bytes to rows: which reader is asked, what all of them have in common, and lines of JSON.
//!
//! A row is refused before it takes more memory than its bounds allow, and told by its number and the bound. All
//! rows together take at most a few times the 4 GiB that a data set may have: at most [`MOST_ROWS`] of them,
//! [`MOST_VALUES`] values, and the texts.

use agrpo_spec::{lfs_pointer, utf_8};
use bytes::Bytes;
use serde_json::Value;

use super::json::json_columns;
use super::{DataError, Format, Row, columns, csv};

/// Rows of the largest data set: eight times the largest that a protocol knows. A row takes a kilobyte, and
/// a packed file may say any number of rows in a few bytes.
pub(super) const MOST_ROWS: usize = 1 << 22;
/// Values in all rows together; one takes 32 to 128 bytes beside its text.
pub(super) const MOST_VALUES: usize = 1 << 25;
/// Bytes of a row: a line of JSON or CSV, or what stands in a row of Parquet.
pub const LONGEST_ROW: usize = 16 << 20;
/// Values of a row, those in lists and objects included.
pub(super) const MOST_VALUES_OF_A_ROW: usize = 1 << 18;
/// Columns of a row, and keys of an object in one.
pub(super) const MOST_COLUMNS: usize = 4096;

/// The rows of a data set, in their order; at least one.
///
/// # Errors
/// Where the bytes are not of that format, with the row where one can be named; where a row or all of them
/// are larger than their bounds; where there is none.
pub fn rows(bytes: &Bytes, format: Format) -> Result<Vec<Row>, DataError> {
    let refuse = |reason: String| DataError::Format { format: "the data set", reason };
    if let Some(told) = lfs_pointer(bytes) {
        return Err(refuse(format!("it is {told}")));
    }
    if bytes.is_empty() {
        return Err(refuse("the file is empty (0 bytes)".to_owned()));
    }
    // Some programs put a mark of byte order first, which would become part of a name.
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let rows = match format {
        Format::Parquet => columns::rows(bytes)?,
        Format::JsonLines => json_lines(utf_8(text).map_err(refuse)?.as_bytes())?,
        Format::Csv => csv::rows(utf_8(text).map_err(refuse)?.as_bytes())?,
    };
    if rows.is_empty() {
        return Err(refuse("it has no rows: expected at least one".to_owned()));
    }
    Ok(rows)
}

pub(super) fn deeper_than(depth: usize) -> String {
    format!("lists and objects nest deeper than {depth}")
}

/// Rows that are not too many.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) all: Vec<Row>,
    values: usize,
}

impl Rows {
    /// Takes a row of so many values.
    pub(super) fn push(&mut self, row: Row, values: usize) -> Result<(), DataError> {
        self.values += values;
        let too_many = |what: &str, most: usize| DataError::Row {
            row: row.number,
            reason: format!("the data set has more than {most} {what}"),
        };
        if self.all.len() == MOST_ROWS {
            return Err(too_many("rows", MOST_ROWS));
        }
        if self.values > MOST_VALUES {
            return Err(too_many("values", MOST_VALUES));
        }
        self.all.push(row);
        Ok(())
    }
}

/// Values in a value, itself included.
pub(super) fn count(value: &Value) -> usize {
    match value {
        Value::Array(all) => 1 + all.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn json_lines(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    let mut rows = Rows::default();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = index + 1;
        if line.len() > LONGEST_ROW {
            let reason = format!("{} bytes, expected at most {LONGEST_ROW}", line.len());
            return Err(DataError::Row { row: number, reason });
        }
        let (fields, noted) = json_columns(line).map_err(|error| DataError::Row {
            row: number,
            reason: format!("{error}; expected one JSON object a line"),
        })?;
        let values = fields.values().map(count).sum();
        rows.push(Row { number, fields, noted }, values)?;
    }
    Ok(rows.all)
}
