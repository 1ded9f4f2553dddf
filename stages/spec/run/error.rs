//! Why a run file is refused, in one line, and the checks that values share.

use std::ops::RangeInclusive;

use crate::digest::Real;
use crate::message::Message;
use crate::text::{one_line, shown};

/// Why a run file was refused. `Display` is one line: key, value, what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error(transparent)]
    Syntax(Message),
    /// A value, or a combination of values, that cannot be run.
    #[error("{key} = {}: {}", one_line(.found), shown(.expected, 600))]
    Value {
        /// The key, with its section, as in `rollout.group`.
        key: String,
        /// The value as written.
        found: String,
        /// What would be accepted; may list names from the file, so that it is shown shortened.
        expected: String,
    },
}

/// A key with the value that a run file has for it.
pub(super) struct Setting(String, String);

pub(super) fn setting(key: impl Into<String>, found: impl ToString) -> Setting {
    Setting(key.into(), found.to_string())
}

impl Setting {
    /// Refuses the value unless this holds.
    pub(super) fn ensure(self, holds: bool, expected: impl Into<String>) -> Result<(), RunError> {
        if holds { Ok(()) } else { Err(self.refused(expected)) }
    }

    pub(super) fn refused(self, expected: impl Into<String>) -> RunError {
        RunError::Value { key: self.0, found: self.1, expected: expected.into() }
    }
}

pub(super) fn within(key: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), RunError> {
    let (least, most) = (range.start(), range.end());
    let expected = format!("expected an integer from {least} to {most}");
    setting(key, value).ensure(range.contains(&value), expected)
}

pub(super) fn positive(key: impl Into<String>, value: Real) -> Result<(), RunError> {
    setting(key, value).ensure(value.get() > 0.0, "expected a number above 0")
}

pub(super) fn not_negative(key: impl Into<String>, value: Real) -> Result<(), RunError> {
    setting(key, value).ensure(value.get() >= 0.0, "expected a number of at least 0")
}

pub(super) fn below_one(key: impl Into<String>, value: Real) -> Result<(), RunError> {
    setting(key, value)
        .ensure((0.0..1.0).contains(&value.get()), "expected a number from 0 to below 1")
}

pub(super) fn share(key: impl Into<String>, value: Real) -> Result<(), RunError> {
    setting(key, value).ensure((0.0..=1.0).contains(&value.get()), "expected a share from 0 to 1")
}
