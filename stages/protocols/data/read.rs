//! Bytes to rows. The only place that names the crates for Parquet and CSV.

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Number, Value};

use super::{DataError, Format, Row, pages};

/// Rows of the largest data set: eight times the largest that a protocol knows. A row takes a kilobyte, and
/// a packed file may say any number of rows in a few bytes.
const MOST_ROWS: usize = 1 << 22;

/// The rows of a data set, in their order.
///
/// # Errors
/// Where the bytes are not of that format, with the row where one can be named; where there are more than
/// 4,194,304 rows.
pub fn rows(bytes: &Bytes, format: Format) -> Result<Vec<Row>, DataError> {
    if let Some(told) = agrpo_spec::lfs_pointer(bytes) {
        return Err(DataError::Format { format: "the data set", reason: format!("it is {told}") });
    }
    match format {
        Format::JsonLines => json_lines(bytes),
        Format::Parquet => parquet(bytes),
        Format::Csv => csv(bytes),
    }
}

/// Takes a row that is not one too many.
fn push(rows: &mut Vec<Row>, row: Row) -> Result<(), DataError> {
    if rows.len() == MOST_ROWS {
        let reason = format!("the data set has more than {MOST_ROWS} rows");
        return Err(DataError::Row { row: row.number, reason });
    }
    rows.push(row);
    Ok(())
}

fn json_lines(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    let mut rows = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = index + 1;
        let fields = serde_json::from_slice(line).map_err(|error| DataError::Row {
            row: number,
            reason: format!("{error}; expected one JSON object a line"),
        })?;
        push(&mut rows, Row { number, fields })?;
    }
    Ok(rows)
}

fn csv(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    let fault =
        |error: &::csv::Error| DataError::Format { format: "CSV", reason: error.to_string() };
    // Some programs put a mark of byte order first, which would become part of a name.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut reader = ::csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| fault(&error))?.clone();
    let mut rows = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let number = index + 1;
        let record =
            record.map_err(|error| DataError::Row { row: number, reason: error.to_string() })?;
        let fields = names.iter().zip(record.iter());
        let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
        push(&mut rows, Row { number, fields })?;
    }
    Ok(rows)
}

/// The crate panics on some damaged files.
fn parquet(bytes: &Bytes) -> Result<Vec<Row>, DataError> {
    std::panic::catch_unwind(|| unpack(bytes)).unwrap_or_else(|_| {
        let reason = "no sound file of this format".to_owned();
        Err(DataError::Format { format: "Parquet", reason })
    })
}

fn unpack(bytes: &Bytes) -> Result<Vec<Row>, DataError> {
    let fault = |error: &dyn std::fmt::Display| DataError::Format {
        format: "Parquet",
        reason: error.to_string(),
    };
    let reader = SerializedFileReader::new(bytes.clone()).map_err(|error| fault(&error))?;
    let groups = reader.metadata().row_groups().iter();
    let columns = groups.flat_map(|group| group.columns()).map(|column| {
        let (start, length) = column.byte_range();
        start..start.saturating_add(length)
    });
    pages::check(bytes, columns).map_err(|reason| fault(&reason))?;
    let records = reader.get_row_iter(None).map_err(|error| fault(&error))?;
    let mut rows = Vec::new();
    for (index, record) in records.enumerate() {
        let number = index + 1;
        let record =
            record.map_err(|error| DataError::Row { row: number, reason: error.to_string() })?;
        push(&mut rows, Row { number, fields: group(&record) })?;
    }
    Ok(rows)
}

fn group(row: &parquet::record::Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A field as JSON; times, bytes and decimals, which no task has, become text.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Number::from_f64(f64::from(*value)).map_or(Value::Null, Value::from),
        Field::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::from),
        Field::Str(text) => Value::from(text.as_str()),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => Value::Object(group(row)),
        other => Value::from(other.to_string()),
    }
}
