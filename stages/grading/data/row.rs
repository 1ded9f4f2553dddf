//! A row of a data set as it was read, how large one and all of them may be, and why one cannot be used.
//!
//! All rows take at most a few times the 4 GiB that a data set may have: at most [`MOST_ROWS`], [`MOST_VALUES`],
//! and the texts. A row is refused before it takes more, with its number and the bound.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One row, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Counted from 1: the line in JSON lines, else the row below the names.
    pub number: usize,
    /// Its values, by column.
    pub fields: Map<String, Value>,
    /// Columns whose number would be written differently than in the file, with the file's spelling.
    pub noted: BTreeMap<String, String>,
}

impl Row {
    /// A row without such columns.
    pub fn new(number: usize, fields: Map<String, Value>) -> Self {
        Self { number, fields, noted: BTreeMap::new() }
    }
}

/// Why a data set is refused. `Display` is one line: row, field, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The bytes are not what the format says.
    #[error("{format} cannot be read: {reason}")]
    Format {
        /// The format's name.
        format: &'static str,
        /// The reader's message.
        reason: String,
    },
    /// A row cannot be read at all.
    #[error("row {row} cannot be read: {reason}")]
    Row {
        /// Which one.
        row: usize,
        /// The reader's message.
        reason: String,
    },
    /// A field is not there.
    #[error("row {row} has no {field}: expected {expected}")]
    Missing {
        /// Which row.
        row: usize,
        /// Which field.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A field has a value of another kind.
    #[error("row {row}, {field} = {found}: expected {expected}")]
    Field {
        /// Which row.
        row: usize,
        /// Which field.
        field: &'static str,
        /// The value, cut to a readable length.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// Rows of the largest data set, eight times the most that a protocol uses: a packed file can claim any number in a few
/// bytes.
const MOST_ROWS: usize = 1 << 22;
/// Values in all rows together; one takes 32 to 128 bytes beside its text.
const MOST_VALUES: usize = 1 << 25;
/// Bytes of a row: a line of JSON or CSV, or the values in a row of Parquet.
pub const LONGEST_ROW: usize = 16 << 20;
/// Values of a row, those in lists and objects included.
pub(super) const MOST_VALUES_OF_A_ROW: usize = 1 << 18;
/// Columns of a row, and keys of an object in one.
pub(super) const MOST_COLUMNS: usize = 4096;

/// Rows within the bounds.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) all: Vec<Row>,
    values: usize,
}

impl Rows {
    /// Adds a row of this many values. Error beyond a bound.
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
