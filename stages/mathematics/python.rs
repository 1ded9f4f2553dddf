//! Python's meaning of whitespace, digits and numbers where it differs from Rust's.
//!
//! Has only what graders need. Evaluates no expressions (see `expression.rs`), and has no `repr`.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use crate::patterns::pattern;

/// Whitespace as a class of a regular expression: Unicode's, and the four separators below U+0020 that
/// Python adds.
pub const SPACE: &str = r"[\s\x1c-\x1f]";

/// `str.isspace` of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.isdigit()`: decimal digits of any script, and superscripts and circled ones; not empty.
pub fn is_digits(text: &str) -> bool {
    static DIGITS: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒]+$"));
    DIGITS.is_match(text)
}

/// `str.zfill(width)`: zeros go behind a leading sign.
pub fn zfill(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let (sign, rest) = match text.chars().next() {
        Some(c @ ('+' | '-')) => (Some(c), &text[1..]),
        _ => (None, text),
    };
    sign.into_iter().chain(std::iter::repeat_n('0', missing)).chain(rest.chars()).collect()
}

/// Decimal digits of other scripts as those of ASCII, which `int()` and `float()` do before they read.
fn ascii_digits(text: &str) -> Cow<'_, str> {
    static OTHER: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\p{Nd}--0-9]"));
    OTHER.replace_all(text, |found: &regex::Captures<'_>| {
        let digit = found[0].chars().next().unwrap_or('0');
        // Scripts have their digits in tens, one script perhaps next to another.
        let is_digit = |place: &u32| {
            char::from_u32(*place).is_some_and(|c| OTHER.is_match(c.encode_utf8(&mut [0; 4])))
        };
        let before = (0..u32::from(digit)).rev().take_while(is_digit).count();
        (before % 10).to_string()
    })
}

/// `int(text)` of a run of digits; `None` where it does not fit.
pub fn int(text: &str) -> Option<u32> {
    ascii_digits(text).parse().ok()
}

/// `float(text)`; `None` where Python raises an error.
pub fn float(text: &str) -> Option<f64> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)^[+-]?(?:inf|infinity|nan|(?:[0-9]+(?:_[0-9]+)*\.?(?:[0-9]+(?:_[0-9]+)*)?|\.[0-9]+(?:_[0-9]+)*)(?:e[+-]?[0-9]+(?:_[0-9]+)*)?)$",
        )
    });
    let text = ascii_digits(strip(text));
    if !NUMBER.is_match(&text) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The runs of digits in a text.
pub fn digit_runs(text: &str) -> Vec<&str> {
    static RUN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d+"));
    RUN.find_iter(text).map(|run| run.as_str()).collect()
}

/// Whether the digit runs of a text are these numbers, in any order.
pub fn uses_exactly(text: &str, numbers: &[u32]) -> bool {
    let mut expected = numbers.to_vec();
    // A run that does not fit is no number of a problem.
    let used: Option<Vec<u32>> = digit_runs(text).into_iter().map(int).collect();
    let Some(mut used) = used else { return false };
    used.sort_unstable();
    expected.sort_unstable();
    used == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_read_as_python_does() {
        for (text, expected) in [
            (" 1.5\n", Some(1.5)),
            ("1_000", Some(1000.0)),
            ("+.5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1,234", None),
            ("10%", None),
            ("_1", None),
            ("1__0", None),
            ("", None),
            (".", None),
            ("0x1", None),
        ] {
            assert_eq!(float(text), expected, "{text:?}");
        }
        assert!(float("nan").unwrap().is_nan());
        assert_eq!(float("٧٢"), Some(72.0));
        assert_eq!(float("-３.５"), Some(-3.5));
        assert_eq!(float("𝟗𝟎𝟏"), Some(901.0));
        assert_eq!(float("5²"), None);
    }

    #[test]
    fn zeros_go_behind_the_sign() {
        assert_eq!(zfill("-5", 4), "-005");
        assert_eq!(zfill("+", 3), "+00");
        assert_eq!(zfill("12345", 3), "12345");
        assert_eq!(zfill("é", 3), "00é");
    }

    #[test]
    fn digits_and_spaces_are_those_of_unicode() {
        assert!(is_digits("12²٣") && !is_digits("") && !is_digits("1.") && !is_digits("½"));
        assert_eq!(strip("\u{1f}\u{a0} a \u{2003}\n"), "a");
        assert_eq!(digit_runs("2.5 and x10"), ["2", "5", "10"]);
        assert!(uses_exactly("5*2+2", &[2, 5, 2]) && !uses_exactly("52+2", &[2, 5, 2]));
        assert!(!uses_exactly("99999999999999999999", &[1]));
        assert!(uses_exactly("7*３+08", &[3, 7, 8]));
    }
}
