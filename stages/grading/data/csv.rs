//! Text of CSV to rows. The only place that names the crate for it.
//!
//! The crate reads on where a quote is left open, so quotes are checked first, as Python's strict reader has them:
//! a field that begins with a quote ends with one, before a comma or the end of a line, and a quote within it is
//! doubled. A quote within a field that begins without one stands for itself.

use std::collections::BTreeSet;
use std::io::{self, Read};

use agrpo_spec::excerpt;
use serde_json::Value;

use super::row::{DataError, LONGEST_ROW, MOST_COLUMNS, Row, Rows};

/// Reads a file, and fails at a row that is too long.
struct Capped<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Read for Capped<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let length = piece.len().min(self.rest.len()).min(self.left);
        if length == 0 && !self.rest.is_empty() && !piece.is_empty() {
            let reason = format!("more than {LONGEST_ROW} bytes up to the end of the row");
            return Err(io::Error::other(reason));
        }
        let (now, later) = self.rest.split_at(length);
        piece[..length].copy_from_slice(now);
        (self.rest, self.left) = (later, self.left - length);
        Ok(length)
    }
}

/// The rows below the line of names.
pub(super) fn rows(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    check_quotes(bytes)?;
    let fault = |reason: String| DataError::Format { format: "CSV", reason };
    let mut reader = ::csv::Reader::from_reader(Capped { rest: bytes, left: LONGEST_ROW });
    let names = reader.headers().map_err(|error| fault(reason(&error)))?.clone();
    if names.len() > MOST_COLUMNS {
        let found = names.len();
        return Err(fault(format!("{found} columns, expected at most {MOST_COLUMNS}")));
    }
    let mut known = BTreeSet::new();
    if let Some(name) = names.iter().find(|&name| !known.insert(name)) {
        let expected = "names two columns: expected every name once in the first line";
        return Err(fault(format!("{:?} {expected}", excerpt(name))));
    }
    let mut rows = Rows::default();
    let mut record = ::csv::StringRecord::new();
    for number in 1.. {
        reader.get_mut().left = LONGEST_ROW;
        let more = reader.read_record(&mut record);
        if !more.map_err(|error| DataError::Row { row: number, reason: reason(&error) })? {
            break;
        }
        let fields = names.iter().zip(record.iter());
        let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
        rows.push(Row::new(number, fields), names.len())?;
    }
    Ok(rows.all)
}

/// The state of the check of quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the beginning of a row.
    Row,
    /// At the beginning of a field.
    Field,
    /// In a field without quotes.
    Plain,
    /// Behind a quote that opens.
    Quoted,
    /// Behind a quote that closes, or is the first of two.
    Closed,
}

/// Refuses a quote that is not closed, or closed and followed by more.
fn check_quotes(bytes: &[u8]) -> Result<(), DataError> {
    use Place::{Closed, Field, Plain, Quoted};
    // The line of names is row 0.
    let (mut place, mut row, mut line, mut opened) = (Place::Row, 0, 1, 1);
    let refuse = |row: usize, reason: String| match row {
        0 => DataError::Format { format: "CSV", reason },
        row => DataError::Row { row, reason },
    };
    for &byte in bytes {
        place = match (place, byte) {
            (Quoted, b'"') => Closed,
            (Closed, b'"') | (Quoted, _) => Quoted,
            (Place::Row | Field, b'"') => {
                opened = line;
                Quoted
            }
            (Place::Row, b'\r' | b'\n') => Place::Row,
            (_, b'\r' | b'\n') => {
                row += 1;
                Place::Row
            }
            (_, b',') => Field,
            (Closed, _) => {
                let reason = format!(
                    "the quote that opens a field in line {opened} closes in line {line} before the field ends: \
                     expected a comma or the end of the line; a quote within quotes is doubled"
                );
                return Err(refuse(row, reason));
            }
            (Place::Row | Field | Plain, _) => Plain,
        };
        line += usize::from(byte == b'\n');
    }
    if place == Quoted {
        let reason = format!("the quote that opens a field in line {opened} is never closed");
        return Err(refuse(row, reason));
    }
    Ok(())
}

/// The reader's message, or that of [`Capped`] below it.
fn reason(error: &::csv::Error) -> String {
    match error.kind() {
        ::csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}
