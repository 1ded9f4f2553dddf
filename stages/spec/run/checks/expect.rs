//! What a value is expected to be, and the error where it is not.

use crate::digest::Real;
use crate::run::error::RunError;

pub(super) fn refuse(
    key: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> RunError {
    RunError::Value { key, found: found.to_string(), expected: expected.into() }
}

pub(super) fn ensure(
    holds: bool,
    key: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> Result<(), RunError> {
    if holds { Ok(()) } else { Err(refuse(key, found, expected)) }
}

pub(super) fn within(
    key: &'static str,
    value: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<(), RunError> {
    ensure(
        range.contains(&value),
        key,
        value,
        format!("expected an integer from {} to {}", range.start(), range.end()),
    )
}

pub(super) fn positive(key: &'static str, value: Real) -> Result<(), RunError> {
    ensure(value.get() > 0.0, key, value, "expected a number above 0")
}

pub(super) fn share(key: &'static str, value: Real) -> Result<(), RunError> {
    ensure((0.0..1.0).contains(&value.get()), key, value, "expected a number from 0 to below 1")
}
