//! Lines of JSON to rows. Bounded in length, values, columns and depth; a key stands once,
//! and a number that a reader would change is noted or refused.
//!
//! An integer of more than 64 bits would become a float, so it is refused by its column. A float arrives with the value
//! that every reader takes; if it would be written differently (`1e5`, `1.10`), the row notes its spelling, so that a
//! template that uses the column is refused.

use std::{collections::BTreeMap, fmt};

use agrpo_spec::{excerpt, is_out_of_range};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::row::{DataError, LONGEST_ROW, MOST_COLUMNS, MOST_VALUES_OF_A_ROW, Row, Rows, count};

/// The deepest nesting of objects and lists, the row included.
const DEEPEST: usize = 64;

/// The columns of a row, and the spelling of numbers that would be written differently.
pub type Columns = (Map<String, Value>, BTreeMap<String, String>);

/// The rows of JSON lines; blank lines are passed over.
pub(super) fn rows(bytes: &[u8]) -> Result<Vec<Row>, DataError> {
    let mut rows = Rows::default();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = index + 1;
        let refuse = |reason: String| DataError::Row { row: number, reason };
        if line.len() > LONGEST_ROW {
            return Err(refuse(format!("{} bytes, expected at most {LONGEST_ROW}", line.len())));
        }
        let (fields, noted) = json_columns(line)
            .map_err(|error| refuse(format!("{error}; expected one JSON object a line")))?;
        let values = fields.values().map(count).sum();
        rows.push(Row { number, fields, noted }, values)?;
    }
    Ok(rows.all)
}

/// The columns of one line of JSON. Error: why it is refused, in one line, without its place.
pub fn json_columns(line: &[u8]) -> Result<Columns, String> {
    match json_object(line) {
        Ok(fields) => Ok((fields, numbers(line)?)),
        // The error names the column, if it is known.
        Err(error) if is_out_of_range(&error) => {
            Err(numbers(line).err().unwrap_or_else(|| error.to_string()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// An object of JSON under the bounds of a row, each key once. Error: why it is refused.
pub fn json_object(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    if text.len() > LONGEST_ROW {
        return Err(Error::custom(format_args!("more than {LONGEST_ROW} bytes")));
    }
    let mut left = MOST_VALUES_OF_A_ROW;
    let row = Part { depth: 0, left: &mut left };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = serde::Deserializer::deserialize_map(&mut reader, row);
    match read.and_then(|read| reader.end().map(|()| read))? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::custom(format_args!("{other} is no object"))),
    }
}

/// A row, at depth 0, or a value inside one.
struct Part<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Part<'_> {
    /// The bounds for the values inside a list or an object.
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format!("lists and objects nest deeper than {DEEPEST}")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn again(&mut self) -> Part<'_> {
        Part { depth: self.depth, left: &mut *self.left }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format_args!("more than {MOST_VALUES_OF_A_ROW} values in one row"))
        })?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.depth == 0 { "a map" } else { "a value" })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::from))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut inside, mut all) = (self.deeper()?, vec![]);
        while let Some(value) = access.next_element_seed(inside.again())? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut inside, mut fields) = (self.deeper()?, Map::new());
        while let Some(key) = access.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            if fields.len() == MOST_COLUMNS {
                let reason = format!("more than {MOST_COLUMNS} keys in one object");
                return Err(A::Error::custom(reason));
            }
            let value = access.next_value_seed(inside.again())?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// Checks the spelling of the numbers in a line of JSON. Returns, by column, those that would be written differently.
fn numbers(line: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let (mut noted, mut depth, mut at) = (BTreeMap::new(), 0_usize, 0);
    let (mut text, mut column): (&[u8], &[u8]) = (b"", b"");
    while let Some(&byte) = line.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                at += inside(&line[at..]);
                text = &line[start..at.min(line.len())];
            }
            b':' if depth == 1 => column = text,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let more = line[at..].iter();
                at += more.take_while(|byte| b"0123456789+-.eE".contains(byte)).count();
                let number = std::str::from_utf8(&line[start..at]).unwrap_or_default();
                if !is_kept(number).map_err(|why| {
                    format!("column {}: {why}", excerpt(&String::from_utf8_lossy(column)))
                })? {
                    let name = serde_json::from_slice(column).unwrap_or_default();
                    noted.entry(name).or_insert_with(|| number.chars().take(40).collect());
                }
            }
            _ => {}
        }
    }
    Ok(noted)
}

/// Bytes to the end of a text, its quote included.
fn inside(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = rest.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    rest.len()
}

/// Whether a number would be written with the same spelling.
fn is_kept(number: &str) -> Result<bool, String> {
    let cut: String = number.chars().take(40).collect();
    if !number.contains(['.', 'e', 'E']) {
        if number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
            return Err(format!("the integer {cut} has more than 64 bits: write it as text"));
        }
        return Ok(number != "-0");
    }
    let value: f64 = number.parse().unwrap_or(f64::INFINITY);
    if !value.is_finite() {
        return Err(format!("the number {cut} is too large for a float: write it as text"));
    }
    // As templates write a float.
    let text = value.to_string();
    Ok(number == if text.contains('.') { text } else { format!("{text}.0") })
}
