//! A row of a data set as it was read, and why one cannot be used.

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
    #[must_use]
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
