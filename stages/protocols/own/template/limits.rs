//! What a rendering may take: the length of a value, how deep it nests, and the bytes handled in all. Each is
//! asked before memory is taken for it.
//!
//! The crate's filters run as they are, behind a look at their arguments: those that make more than they are
//! given (`replace`, `join`, `indent`, `format`, ...) are asked how much it will be.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use minijinja::value::{Kwargs, Object, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, filters};

/// Bytes of the longest text, and of any value that becomes one: 65,536 tokens of 16 bytes.
pub(super) const LONGEST: u64 = 1 << 20;
/// Bytes that one rendering handles, in all.
pub(super) const WORK: u64 = 1 << 26;
/// Lists in lists.
const DEEPEST: usize = 64;
/// What a value of any kind weighs beside its text.
const WEIGHT: u64 = 32;
/// A look at a value costs less than making one.
const LOOK: u64 = 8;

pub(super) const SEEN: &str = "(seen)";
pub(super) const KEPT: &str = "(kept)";
pub(super) const MADE: &str = "(made)";
pub(super) const TIMES: &str = "(times)";
pub(super) const JOINED: &str = "(joined)";

/// What an error about null says; the caller knows which column it was.
pub(super) const NULL: &str = "null is no text";

fn refuse(told: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, told.into())
}

fn too_long(most: u64) -> Error {
    refuse(format!("a value of more than {most} bytes"))
}

/// The bytes that a rendering has handled.
#[derive(Default)]
struct Work(AtomicU64);

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("work")
    }
}

impl Object for Work {}

impl Work {
    fn of(state: &State<'_, '_>) -> Arc<Self> {
        state.get_or_set_temp_object("work", Self::default)
    }

    fn charge(&self, bytes: u64) -> Result<(), Error> {
        let before = self.0.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > WORK {
            return Err(refuse(format!("the template handles more than {WORK} bytes")));
        }
        Ok(())
    }
}

/// What a value weighs with everything in it, as often as it would be written; an error beyond `most`.
fn weight(value: &Value, most: u64) -> Result<u64, Error> {
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

/// Whether a null stands anywhere in a value that is no longer than it may be.
fn holds_null(value: &Value) -> bool {
    let mut open = vec![value.clone()];
    while let Some(value) = open.pop() {
        match value.kind() {
            ValueKind::None => return true,
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
    false
}

fn not_null(value: &Value) -> Result<(), Error> {
    if holds_null(value) { Err(refuse(NULL)) } else { Ok(()) }
}

/// A value that was made: counted, and a list rather than a promise of one.
fn made(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
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
        let told = || refuse("texts and lists can only be multiplied with integers");
        let number = number.as_usize().ok_or_else(told)?;
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
        let told = || refuse(format!("unable to calculate {left} * {right}"));
        let product = left.checked_mul(right).ok_or_else(told)?;
        return Ok(i64::try_from(product).map_or_else(|_| Value::from(product), Value::from));
    }
    let number = |value: &Value| f64::try_from(value.clone()).map_err(|_| failed());
    Ok(Value::from(number(left)? * number(right)?))
}

/// What is written, into the text or into a value.
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

/// Bytes that a filter makes beyond a few times those of its arguments.
fn surplus(name: &str, args: &[Value]) -> Result<u64, Error> {
    let (positional, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let text = |place: usize| positional.get(place).and_then(Value::as_str);
    let number = |place: usize, key: &str| {
        let named = || kwargs.get::<Option<Value>>(key).ok().flatten();
        let value = positional.get(place).cloned().or_else(named);
        value.and_then(|value| value.as_usize()).map(|number| number as u64)
    };
    let times = |one: u64, other: u64| Ok(one.saturating_mul(other));
    match name {
        "replace" => match (text(0), text(1), text(2)) {
            (Some(text), Some(from), Some(to)) => {
                times(text.matches(from).count() as u64, to.len() as u64)
            }
            // A value of another kind is written first; it has no more places than bytes.
            _ => times(weight_of(positional.first())?, weight_of(positional.get(2))?),
        },
        "join" => {
            let parts = match (text(0), positional.first()) {
                (Some(text), _) => text.len() as u64,
                (None, Some(list)) => {
                    list.try_iter()?.try_for_each(|part| not_null(&part))?;
                    list.try_iter()?.count() as u64
                }
                (None, None) => 0,
            };
            times(parts, weight_of(positional.get(1))?)
        }
        "indent" => {
            let lines = text(0).map_or(1, |text| text.matches('\n').count() as u64 + 1);
            times(lines, number(1, "width").unwrap_or(4))
        }
        "batch" | "slice" => {
            times(number(1, "count").unwrap_or(1), WEIGHT + weight_of(positional.get(2))?)
        }
        "format" => {
            let pattern = text(0).unwrap_or_default();
            let fields = pattern.matches('%').count() as u64;
            let mut widest: u64 = 0;
            for digits in pattern.split(|c: char| !c.is_ascii_digit()) {
                // What has more digits than a number is no width, but never short.
                let long = || if digits.is_empty() { 0 } else { u64::MAX };
                widest = widest.max(digits.parse().unwrap_or_else(|_| long()));
            }
            if pattern.contains('*') {
                let numbers = positional.iter().skip(1).filter_map(Value::as_usize);
                widest = widest.max(numbers.max().unwrap_or(0) as u64);
            }
            let mut all: u64 = 0;
            for argument in args.iter().skip(1) {
                all = all.saturating_add(weight(argument, LONGEST)?);
            }
            times(fields, all.saturating_add(widest))
        }
        // Four blanks for every list around a line.
        "pprint" => times(weight_of(positional.first())?, 4 * DEEPEST as u64),
        _ => Ok(0),
    }
}

fn weight_of(value: Option<&Value>) -> Result<u64, Error> {
    value.map_or(Ok(0), |value| weight(value, LONGEST))
}

/// A filter of the crate, asked for no more than it may take.
fn guarded(
    name: &str,
    filter: &Value,
    state: &State<'_, '_>,
    args: &[Value],
) -> Result<Value, Error> {
    let takes_null = matches!(name, "default" | "d");
    if !takes_null && args.first().is_some_and(Value::is_none) {
        return Err(refuse(NULL));
    }
    let mut sum = WEIGHT;
    for argument in args {
        sum += weight(argument, LONGEST)?;
    }
    let surplus = surplus(name, args)?;
    if surplus > LONGEST {
        return Err(too_long(LONGEST));
    }
    if matches!(name, "string" | "format" | "pprint") {
        args.iter().try_for_each(not_null)?;
    }
    Work::of(state).charge(sum.saturating_add(surplus))?;
    let value = filter.call(state, args)?;
    // Lists that only point to others would point ever deeper in a loop.
    let value = match (name, value.kind()) {
        ("chain", ValueKind::Seq) => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        ("chain", ValueKind::Map) => {
            let pair = |key: Value| Ok::<_, Error>((key.clone(), value.get_item(&key)?));
            value.try_iter()?.map(pair).collect::<Result<Vec<_>, _>>()?.into_iter().collect()
        }
        _ => value,
    };
    made(state, value)
}

macro_rules! guard {
    ($environment:ident, $filter:ident as $name:ident) => {
        let filter = Value::from_function(filters::$filter);
        $environment.add_filter(
            stringify!($name),
            move |state: &State<'_, '_>, args: Rest<Value>| {
                guarded(stringify!($name), &filter, state, &args)
            },
        );
    };
    ($environment:ident, $($name:ident)+) => {
        $(guard!($environment, $name as $name);)+
    };
}

/// Puts every filter behind its bounds, and takes away what shows an environment.
pub(super) fn set(environment: &mut Environment<'_>) {
    environment.set_formatter(write);
    environment.remove_global("debug");
    environment.add_filter(SEEN, |state: &State<'_, '_>, Rest(args): Rest<Value>| {
        let value = args.into_iter().next().unwrap_or_default();
        Work::of(state).charge(weight(&value, WORK * LOOK)? / LOOK)?;
        Ok::<_, Error>(value)
    });
    environment.add_filter(KEPT, |state: &State<'_, '_>, Rest(args): Rest<Value>| {
        let value = args.into_iter().next().unwrap_or_default();
        Work::of(state).charge(weight(&value, WORK)?)?;
        Ok::<_, Error>(value)
    });
    environment.add_filter(MADE, |state: &State<'_, '_>, Rest(args): Rest<Value>| {
        made(state, args.into_iter().next().unwrap_or_default())
    });
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
    guard!(environment, escape as e);
    guard!(environment, length as count);
    guard!(environment, default as d);
    guard!(environment, safe escape lower upper title capitalize replace length dictsort items reverse trim);
    guard!(environment, join split lines default round abs int float attr first last min max sort list string);
    guard!(environment, bool batch slice sum indent select reject selectattr rejectattr map groupby unique);
    guard!(environment, chain zip pprint format);
}
