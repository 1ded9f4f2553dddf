//! A cell of an evaluation's grid: a length of completions and a number of unmask steps, written `128x64`.
//!
//! Says nothing about blocks: whether the steps divide evenly over them is checked with the rest of the section.

use std::{fmt, str::FromStr};

use crate::names::serde_as_text;

/// A length of completions with a number of unmask steps. Shown as `128x64`; a length alone is read with half as many
/// steps, as both protocols evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode)]
pub struct GridCell {
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Unmask steps.
    pub steps: u32,
}

/// The text is no cell of a grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: expected tokens and unmask steps of a completion as in \"128x64\", or tokens alone for half as many steps"
)]
pub struct ParseGridError(String);

impl fmt::Display for GridCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.completion_tokens, self.steps)
    }
}

impl FromStr for GridCell {
    type Err = ParseGridError;

    fn from_str(text: &str) -> Result<Self, ParseGridError> {
        let refuse = || ParseGridError(text.to_owned());
        let whole = |part: &str| part.parse().ok().filter(|&n: &u32| n > 0).ok_or_else(refuse);
        let (completion_tokens, steps) = match text.trim().split_once('x') {
            Some((tokens, steps)) => (whole(tokens)?, whole(steps)?),
            None => {
                let tokens = whole(text.trim())?;
                (tokens, Some(tokens / 2).filter(|_| tokens % 2 == 0).ok_or_else(refuse)?)
            }
        };
        Ok(Self { completion_tokens, steps })
    }
}

serde_as_text!(GridCell);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_a_length_with_steps_and_a_length_alone_has_half_as_many() {
        let read = |text: &str| text.parse::<GridCell>().map(|cell| cell.to_string());
        for (text, cell) in [("128x64", "128x64"), ("256", "256x128"), (" 8x8 ", "8x8")] {
            assert_eq!(read(text).unwrap(), cell);
        }
        for wrong in ["", "x", "128x", "x64", "0x0", "128x0", "127", "128X64", "1x2x3", "-8x4"] {
            assert!(read(wrong).unwrap_err().to_string().contains("\"128x64\""), "{wrong}");
        }
    }
}
