//! Why a run file is refused, in one line.

use super::compatibility::Incompatible;
use crate::shown::{one_line, shown};

/// Characters of what would be accepted, which may list names from the file.
const EXPECTED: usize = 600;

/// Why a run file was refused. `Display` is one line: key, value, what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// A value, or a combination of values, that cannot be run.
    #[error("{key} = {}: {}", one_line(.found), shown(.expected, EXPECTED))]
    Value {
        /// The key, with its section, as in `rollout.group`.
        key: &'static str,
        /// The value as written.
        found: String,
        /// What would be accepted.
        expected: String,
    },
}

impl From<Incompatible> for RunError {
    fn from(Incompatible { key, found, expected }: Incompatible) -> Self {
        Self::Value { key, found, expected }
    }
}
