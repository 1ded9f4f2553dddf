//! Regular expressions that are constants of this crate and of the graders above it.
//!
//! Never used for a pattern from a run file: a pattern that does not compile panics. The tests compile all of them.

/// A pattern that is matched in linear time.
pub fn pattern(text: &str) -> regex::Regex {
    regex::Regex::new(text).expect("a constant pattern that tests compile")
}

/// Steps of backtracking after which a match is given up, as a time limit would.
const MAX_BACKTRACKS: usize = 20_000_000;

/// A pattern with look-around, which a text can make slow: bounded by [`MAX_BACKTRACKS`].
pub(super) fn backtracking(text: &str) -> fancy_regex::Regex {
    let built = fancy_regex::RegexBuilder::new(text).backtrack_limit(MAX_BACKTRACKS).build();
    built.expect("a constant pattern that tests compile")
}
