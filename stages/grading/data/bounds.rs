//! How large a row and a data set may be.
//!
//! All rows together take at most a few times the 4 GiB that a data set may have: at most [`MOST_ROWS`] of
//! them, [`MOST_VALUES`] values, and the texts. A row is refused before it takes more memory than that, with
//! its number and the bound.

use serde_json::Value;

use super::row::{DataError, Row};

/// Rows of the largest data set: eight times the largest that a protocol knows. A row takes a kilobyte, and
/// a packed file may say any number of rows in a few bytes.
const MOST_ROWS: usize = 1 << 22;
/// Values in all rows together; one takes 32 to 128 bytes beside its text.
const MOST_VALUES: usize = 1 << 25;
/// Bytes of a row: a line of JSON or CSV, or what stands in a row of Parquet.
pub const LONGEST_ROW: usize = 16 << 20;
/// Values of a row, those in lists and objects included.
pub(super) const MOST_VALUES_OF_A_ROW: usize = 1 << 18;
/// Columns of a row, and keys of an object in one.
pub(super) const MOST_COLUMNS: usize = 4096;

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
