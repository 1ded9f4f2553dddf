//! Bytes to rows: lines of JSON and CSV. The only place that names the crate for CSV.
//!
//! A row is refused before it takes more memory than its bounds allow, and told by its number and the bound. All
//! rows together take at most a few times the 4 GiB that a data set may have: at most [`MOST_ROWS`] of them,
//! [`MOST_VALUES`] values, and the texts.

use std::collections::BTreeSet;
use std::io::{self, Read};

use bytes::Bytes;
use serde_json::Value;

use super::json::json_columns;
use super::{DataError, Format, Row, columns};

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

/// The rows of a data set, in their order.
///
/// # Errors
/// Where the bytes are not of that format, with the row where one can be named; where a row or all of them
/// are larger than their bounds.
pub fn rows(bytes: &Bytes, format: Format) -> Result<Vec<Row>, DataError> {
    if let Some(told) = agrpo_spec::lfs_pointer(bytes) {
        return Err(DataError::Format { format: "the data set", reason: format!("it is {told}") });
    }
    match format {
        Format::JsonLines => json_lines(bytes),
        Format::Parquet => columns::rows(bytes),
        Format::Csv => csv(bytes),
    }
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
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
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

/// Hands out a file up to the end of a row that is not too long.
struct Capped<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Read for Capped<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let length = piece.len().min(self.rest.len()).min(self.left);
        if length == 0 && !self.rest.is_empty() && !piece.is_empty() {
            let told = format!("more than {LONGEST_ROW} bytes up to the end of the row");
            return Err(io::Error::other(told));
        }
        let (now, later) = self.rest.split_at(length);
        piece[..length].copy_from_slice(now);
        (self.rest, self.left) = (later, self.left - length);
        Ok(length)
    }
}

fn csv(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    let fault = |reason: String| DataError::Format { format: "CSV", reason };
    // Some programs put a mark of byte order first, which would become part of a name.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut reader = ::csv::Reader::from_reader(Capped { rest: bytes, left: LONGEST_ROW });
    let names = reader.headers().map_err(|error| fault(told(&error)))?.clone();
    if names.len() > MOST_COLUMNS {
        let found = names.len();
        return Err(fault(format!("{found} columns, expected at most {MOST_COLUMNS}")));
    }
    let mut known = BTreeSet::new();
    if let Some(name) = names.iter().find(|&name| !known.insert(name)) {
        let told = "names two columns: expected every name once in the first line";
        return Err(fault(format!("{:?} {told}", name.chars().take(80).collect::<String>())));
    }
    let mut rows = Rows::default();
    let mut record = ::csv::StringRecord::new();
    for number in 1.. {
        reader.get_mut().left = LONGEST_ROW;
        let more = reader.read_record(&mut record);
        if !more.map_err(|error| DataError::Row { row: number, reason: told(&error) })? {
            break;
        }
        let fields = names.iter().zip(record.iter());
        let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
        rows.push(Row::new(number, fields), names.len())?;
    }
    Ok(rows.all)
}

/// What the reader says, or what was said to it.
fn told(error: &::csv::Error) -> String {
    match error.kind() {
        ::csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}
