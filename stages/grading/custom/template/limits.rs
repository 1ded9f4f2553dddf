//! Bounds of a rendering: the length of a value, its nesting, and the bytes handled in all, checked before memory
//! is allocated.
//!
//! Defines the bounds and the operators that need one; filters and tests are in [`super::guards`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use minijinja::value::{Object, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

/// Bytes of the longest text, and of any value that becomes one: 65,536 tokens of 16 bytes.
pub(super) const LONGEST: u64 = 1 << 20;
/// Bytes that one rendering handles, in all.
pub(super) const WORK: u64 = 1 << 26;
/// The deepest nesting of lists.
pub(super) const DEEPEST: usize = 64;
/// The weight of a value of any kind, apart from its text.
pub(super) const WEIGHT: u64 = 32;
/// A look at a value costs less than making one.
pub(super) const LOOK: u64 = 4;

pub(super) const SEEN: &str = "(seen)";
pub(super) const KEPT: &str = "(kept)";
pub(super) const MADE: &str = "(made)";
pub(super) const TIMES: &str = "(times)";
pub(super) const JOINED: &str = "(joined)";

/// The text of an error about null; the caller adds the column.
pub(super) const NULL: &str = "null is no text";

pub(super) fn refuse(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

pub(super) fn too_long(most: u64) -> Error {
    refuse(format!("a value of more than {most} bytes"))
}

/// The bytes that a rendering has handled.
#[derive(Debug, Default)]
pub(super) struct Work(AtomicU64);

impl Object for Work {}

impl Work {
    pub(super) fn of(state: &State<'_, '_>) -> Arc<Self> {
        state.get_or_set_temp_object("work", Self::default)
    }

    pub(super) fn charge(&self, bytes: u64) -> Result<(), Error> {
        let before = self.0.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > WORK {
            return Err(refuse(format!("the template handles more than {WORK} bytes")));
        }
        Ok(())
    }
}

/// The cost of a look at this many bytes.
pub(super) fn look(bytes: u64) -> u64 {
    bytes.div_ceil(LOOK)
}

/// The weight of a value with everything in it, as often as it would be written; an error beyond `most`.
pub(super) fn weight(value: &Value, most: u64) -> Result<u64, Error> {
    let (mut sum, mut open) = (0, vec![(value.clone(), 0)]);
    while let Some((value, depth)) = open.pop() {
        sum += WEIGHT + value.as_str().map_or(0, |text| text.len() as u64);
        if sum > most {
            return Err(too_long(most));
        }
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            continue;
        }
        if depth == DEEPEST {
            return Err(refuse(format!("a value nests deeper than {DEEPEST}")));
        }
        let is_map = value.kind() == ValueKind::Map;
        for part in value.try_iter()? {
            if is_map {
                open.push((value.get_item(&part)?, depth + 1));
            }
            open.push((part, depth + 1));
            if open.len() as u64 * WEIGHT > most {
                return Err(too_long(most));
            }
        }
    }
    Ok(sum)
}

/// Refuses a null anywhere in a value that is no longer than it may be.
pub(super) fn not_null(value: &Value) -> Result<(), Error> {
    let mut open = vec![value.clone()];
    while let Some(value) = open.pop() {
        match value.kind() {
            ValueKind::None => return Err(refuse(NULL)),
            ValueKind::Map => {
                let parts = value.try_iter().into_iter().flatten();
                open.extend(parts.filter_map(|key| value.get_item(&key).ok()));
            }
            ValueKind::Seq | ValueKind::Iterable => {
                open.extend(value.try_iter().into_iter().flatten());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Counts a value that was made, and turns a lazy list into a list.
pub(super) fn made(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let weight = weight(&value, LONGEST)?;
    Work::of(state).charge(weight)?;
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let all: Vec<Value> = value.try_iter()?.collect();
    Ok(Value::make_object_iterable(all, |all| Box::new(all.iter().cloned())))
}

/// `a ~ b`.
fn joined(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if left.is_undefined() || right.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let sum = weight(left, LONGEST)? + weight(right, LONGEST)?;
    not_null(left).and_then(|()| not_null(right))?;
    Work::of(state).charge(sum)?;
    made(state, Value::from(format!("{left}{right}")))
}

/// `a * b`.
fn times(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let is_repeated = |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable)
    };
    let pair = [(left, right), (right, left)].into_iter().find(|(value, _)| is_repeated(value));
    if let Some((value, number)) = pair {
        let refused = || refuse("texts and lists can only be multiplied with integers");
        let number = number.as_usize().ok_or_else(refused)?;
        if weight(value, LONGEST)?.saturating_mul(number as u64) > LONGEST {
            return Err(too_long(LONGEST));
        }
        if let Some(text) = value.as_str() {
            return made(state, Value::from(text.repeat(number)));
        }
        let once: Vec<Value> = value.try_iter()?.collect();
        let all: Vec<Value> = std::iter::repeat_n(once, number).flatten().collect();
        return made(state, Value::make_object_iterable(all, |all| Box::new(all.iter().cloned())));
    }
    let failed = || {
        let (left, right) = (left.kind(), right.kind());
        refuse(format!("tried to use * operator on unsupported types {left} and {right}"))
    };
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole(left) && is_whole(right) {
        let (left, right) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let refused = || refuse(format!("unable to calculate {left} * {right}"));
        let product = left.checked_mul(right).ok_or_else(refused)?;
        return Ok(i64::try_from(product).map_or_else(|_| Value::from(product), Value::from));
    }
    let number = |value: &Value| f64::try_from(value.clone()).map_err(|_| failed());
    Ok(Value::from(number(left)? * number(right)?))
}

/// Writes a value, into the text or into another value.
pub(super) fn write(
    out: &mut Output<'_>,
    state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let weight = weight(value, LONGEST)?;
    not_null(value)?;
    Work::of(state).charge(weight)?;
    minijinja::escape_formatter(out, state, value)
}

/// Charges a look at a value.
pub(super) fn seen(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    Work::of(state).charge(look(weight(&value, WORK * LOOK)?))?;
    Ok(value)
}

/// Sets the formatter, and the filters that `machine.rs` inserts between the instructions.
pub(super) fn set(environment: &mut Environment<'_>) {
    environment.set_formatter(write);
    let one = |args: Rest<Value>| args.0.into_iter().next().unwrap_or_default();
    environment
        .add_filter(SEEN, move |state: &State<'_, '_>, args: Rest<Value>| seen(state, one(args)));
    environment.add_filter(KEPT, move |state: &State<'_, '_>, args: Rest<Value>| {
        let value = one(args);
        Work::of(state).charge(weight(&value, WORK)?)?;
        Ok::<_, Error>(value)
    });
    environment
        .add_filter(MADE, move |state: &State<'_, '_>, args: Rest<Value>| made(state, one(args)));
    let pair = |args: &[Value]| match args {
        [left, right] => Ok((left.clone(), right.clone())),
        _ => Err(Error::from(ErrorKind::MissingArgument)),
    };
    environment.add_filter(TIMES, move |state: &State<'_, '_>, args: Rest<Value>| {
        pair(&args).and_then(|(left, right)| times(state, &left, &right))
    });
    environment.add_filter(JOINED, move |state: &State<'_, '_>, args: Rest<Value>| {
        pair(&args).and_then(|(left, right)| joined(state, &left, &right))
    });
}
