//! Bytes of Parquet to rows. The only place that names the crate.
//!
//! The file's own sizes and counts are checked first ([`pages`]), since the crate trusts them. A column of bytes is
//! text where it is UTF-8; other bytes are refused with their column, since no task uses any.

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::pages::{self, Packing};
use super::row::{DataError, LONGEST_ROW, MOST_COLUMNS, MOST_VALUES_OF_A_ROW, Row, Rows, count};

/// The most bytes of all texts together: a few packed bytes can unpack to any number.
const LONGEST: u64 = 4 << 30;

fn fault(reason: &dyn std::fmt::Display) -> DataError {
    DataError::Format { format: "Parquet", reason: reason.to_string() }
}

/// The rows of a Parquet file. Catches the panics of the crate on some damaged files.
pub(super) fn rows(bytes: &Bytes) -> Result<Vec<Row>, DataError> {
    std::panic::catch_unwind(|| unpack(bytes))
        .unwrap_or_else(|_| Err(fault(&"no sound file of this format")))
}

fn unpack(bytes: &Bytes) -> Result<Vec<Row>, DataError> {
    pages::check_schema(bytes, MOST_COLUMNS).map_err(|reason| fault(&reason))?;
    let reader = SerializedFileReader::new(bytes.clone()).map_err(|error| fault(&error))?;
    let schema = reader.metadata().file_metadata().schema();
    let groups = reader.metadata().row_groups().iter();
    let columns = groups.flat_map(|group| group.columns()).map(|column| {
        let (start, length) = column.byte_range();
        let packing = match column.compression() {
            Compression::GZIP(_) => Packing::Gzip,
            Compression::BROTLI(_) => Packing::Brotli,
            _ => Packing::Bounded,
        };
        (start..start.saturating_add(length), packing)
    });
    pages::check(bytes, columns).map_err(|reason| fault(&reason))?;
    let nanoseconds: Vec<&str> =
        schema.get_fields().iter().filter(|t| is_instant(t)).map(|t| t.name()).collect();
    let records = reader.get_row_iter(None).map_err(|error| fault(&error))?;
    let (mut rows, mut all) = (Rows::default(), 0_u64);
    for (index, record) in records.enumerate() {
        let number = index + 1;
        let refuse = |reason: String| DataError::Row { row: number, reason };
        let record = record.map_err(|error| refuse(error.to_string()))?;
        let mut row = Row::new(number, Map::new());
        let (mut values, mut length) = (0, 0);
        for (name, field) in record.get_column_iter() {
            let value = value(field).map_err(|why| refuse(format!("column {name:?}: {why}")))?;
            if nanoseconds.contains(&name.as_str()) && !value.is_null() {
                row.noted.insert(name.clone(), format!("the nanosecond {value}"));
            }
            values += count(&value);
            length += text(&value);
            if row.fields.insert(name.clone(), value).is_some() {
                return Err(fault(&format!("{name:?} names two columns")));
            }
        }
        let bounds = [(length, "bytes", LONGEST_ROW), (values, "values", MOST_VALUES_OF_A_ROW)];
        if let Some((found, what, most)) = bounds.into_iter().find(|(found, _, most)| found > most)
        {
            return Err(refuse(format!("{found} {what}, expected at most {most}")));
        }
        all += length as u64;
        if all > LONGEST {
            return Err(refuse(format!("the texts up to here have more than {LONGEST} bytes")));
        }
        rows.push(row, values)?;
    }
    Ok(rows.all)
}

/// Whether a column holds instants that the crate hands over as bare integers.
fn is_instant(column: &Type) -> bool {
    let logical = column.get_basic_info().logical_type_ref();
    matches!(logical, Some(LogicalType::Timestamp(_)))
        && column.get_basic_info().converted_type() == parquet::basic::ConvertedType::NONE
}

/// Bytes of the texts in a value.
fn text(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(text).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + text(value)).sum(),
        _ => 0,
    }
}

/// A field as JSON; times and decimals become text. Refuses a float that is no number: null means a missing value.
fn value(field: &Field) -> Result<Value, String> {
    let float = |value: f64| {
        let number = Number::from_f64(value).map(Value::from);
        number.ok_or_else(|| {
            format!("{value}, which is no number: save it as null, or drop the column")
        })
    };
    Ok(match field {
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
        Field::Float16(value) => float(f64::from(*value))?,
        Field::Float(value) => float(f64::from(*value))?,
        Field::Double(value) => float(*value)?,
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => {
            let (bytes, length) = (bytes.data(), bytes.data().len());
            let expected = "that are no UTF-8: drop the column, or save it as text";
            let text = std::str::from_utf8(bytes);
            Value::from(text.map_err(|_| format!("{length} bytes {expected}"))?)
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Result<_, _>>()?,
        Field::Group(row) => {
            let field = |(name, field): (&String, &Field)| Ok((name.clone(), value(field)?));
            Value::Object(row.get_column_iter().map(field).collect::<Result<_, String>>()?)
        }
        Field::MapInternal(map) => {
            let pair = |(key, field): &(Field, Field)| match value(key)? {
                Value::String(key) => Ok((key, value(field)?)),
                key => Err(format!("a map with the key {key}: expected keys that are text")),
            };
            Value::Object(map.entries().iter().map(pair).collect::<Result<_, String>>()?)
        }
        // The crate leaves a trailing point on a decimal without places.
        Field::Decimal(_) => Value::from(field.to_string().trim_end_matches('.')),
        other => Value::from(other.to_string()),
    })
}
