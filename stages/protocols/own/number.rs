//! The last number of a text, exactly.
//!
//! Whole numbers and decimals of any length are fractions here, never doubles. Every minus sign that Unicode
//! has is a minus, also several in a row. Not read: numbers of more than [`MAX_DIGITS`] digits or with an
//! exponent beyond [`MAX_EXPONENT`], words, quotients, and digits of other scripts than ASCII's.

use std::sync::LazyLock;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Signed;
use regex::Regex;

use crate::python::pattern;

/// Digits of a number, as many as Python reads.
const MAX_DIGITS: usize = 4300;

/// Powers of ten that a double has.
const MAX_EXPONENT: i32 = 308;

/// What may stand before a sign that spaces part from its number, as in `= - 5`. Behind anything else it is a
/// subtraction or a dash.
const BEFORE_SIGN: &str = "=≈<>≤≥([{:$*/×·,;";

/// Whether the last numbers of two texts are at most so far apart.
pub(super) fn is_near(left: &str, right: &str, tolerance: f64) -> bool {
    // The decimal that was written, not the double next to it.
    let tolerance = last(&tolerance.to_string());
    let pair = last(left).zip(last(right)).zip(tolerance);
    pair.is_some_and(|((left, right), tolerance)| (left - right).abs() <= tolerance)
}

/// The last number, with its sign unless that joins it to what stands before, or may do so; commas group its
/// thousands.
fn last(text: &str) -> Option<BigRational> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?x)
            (?P<signs>[-+\u{2010}-\u{2015}\u{2212}\u{FE58}\u{FE63}\u{FF0B}\u{FF0D}]*)
            (?P<whole>[0-9]+(?:,[0-9]+)*)?
            (?P<decimals>\.[0-9]+)?
            (?P<exponent>[eE][-+\u{2212}]?[0-9]+)?",
        )
    });
    let has_digits = |found: &regex::Captures<'_>| {
        found.name("whole").is_some() || found.name("decimals").is_some()
    };
    let found = NUMBER.captures_iter(text).filter(has_digits).last()?;
    let group = |name: &str| found.name(name).map_or("", |group| group.as_str());
    let whole = grouped(group("whole"));
    let digits = format!("{whole}{}", group("decimals").trim_start_matches('.'));
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let exponent = match group("exponent").get(1..) {
        Some(exponent) => exponent.replace('\u{2212}', "-").parse::<i32>().ok()?,
        None => 0,
    };
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let scale = exponent - i32::try_from(digits.len() - whole.len()).ok()?;
    let mut value = BigRational::from_integer(digits.parse().ok()?)
        * BigRational::from_integer(BigInt::from(10)).pow(scale);
    // In `5-3` the sign belongs to the subtraction, and in `1,2345` no sign is left to the last part.
    let before = &text[..found.get(0)?.start()];
    let signs = if group("signs").is_empty() { sign_apart(before) } else { group("signs") };
    let joined = before.ends_with(|c: char| c.is_alphanumeric() || ")]}%".contains(c));
    if !joined && whole.len() == group("whole").replace(',', "").len() {
        let minus = signs.chars().filter(|sign| !matches!(sign, '+' | '\u{FF0B}')).count();
        if minus % 2 == 1 {
            value = -value;
        }
    }
    Some(value)
}

fn is_sign(c: char) -> bool {
    matches!(
        c,
        '+' | '-' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0B}' | '\u{FF0D}'
    )
}

/// The sign at the end of a text, with spaces behind it, where it can be nothing but the sign of what follows.
fn sign_apart(text: &str) -> &str {
    let is_space = |c: char| c.is_whitespace() && c != '\n';
    let trimmed = text.trim_end_matches(is_space);
    let Some((at, _)) = trimmed.char_indices().next_back().filter(|(_, c)| is_sign(*c)) else {
        return "";
    };
    let left = trimmed[..at].trim_end_matches(is_space);
    if left.is_empty() || left.ends_with(|c| BEFORE_SIGN.contains(c)) { &trimmed[at..] } else { "" }
}

/// Digits in groups of three behind up to three others are one number; else the last group is.
fn grouped(whole: &str) -> String {
    let groups: Vec<&str> = whole.split(',').collect();
    let grouped = groups.first().is_some_and(|first| first.len() <= 3)
        && groups.iter().skip(1).all(|group| group.len() == 3);
    if grouped { groups.concat() } else { groups.last().copied().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minus_is_a_minus() {
        for minus in "-\u{2010}\u{2011}\u{2012}\u{2013}\u{2014}\u{2212}\u{FE63}\u{FF0D}".chars() {
            assert!(!is_near("5", &format!("{minus}5"), 0.0), "{minus}");
            assert!(is_near("-5", &format!("it is {minus}5."), 0.0), "{minus}");
            assert!(is_near("3", &format!("5{minus}3"), 0.0), "{minus}");
            assert!(is_near("3", &format!("(5){minus}3"), 0.0), "{minus}");
        }
        assert!(is_near("5", "--5", 0.0) && is_near("-5", "\u{2212}+5", 0.0));
        assert!(is_near("0.01", "1e\u{2212}2", 0.0));
    }

    #[test]
    fn a_sign_apart_from_its_number_counts_where_it_is_no_subtraction() {
        for text in ["- 5", " \u{2212} 5", "x = - 5", "\\boxed{- 5}", "it is: -\u{a0}5", "(3, - 5)"]
        {
            assert!(is_near("-5", text, 0.0) && !is_near("5", text, 0.0), "{text}");
        }
        for text in ["10 - 5", "x - 5", "(1) - 5", "items:\n- 5", "the answer - 5", "+ 5", "- - 5"]
        {
            assert!(is_near("5", text, 0.0) && !is_near("-5", text, 0.0), "{text}");
        }
        assert!(is_near("-5", "10 - -5", 0.0));
    }

    #[test]
    fn numbers_are_exact() {
        assert!(!is_near("9007199254740993", "9007199254740992", 0.0));
        assert!(is_near("9007199254740993", "9,007,199,254,740,993.0", 0.0));
        assert!(!is_near("0.1", "0.10000000000000000001", 0.0));
        assert!(is_near("0.3", "3e-1", 0.0));
        assert!(is_near("1", "1.01", 0.01) && !is_near("1", "1.0100000001", 0.01));
        assert!(is_near("1e20", "100000000000000000000", 0.0));
        assert!(is_near("007", "7", 0.0));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in
            ["", "none", "nan", "inf", "1e999", "1e-999", "1e99999999999", "٣", "３", "-", "."]
        {
            assert_eq!(last(text), None, "{text}");
        }
        assert_eq!(last(&"9".repeat(5000)), None);
        assert_eq!(last(&"-".repeat(100_000)), None);
    }

    #[test]
    fn commas_group_thousands_or_part_numbers() {
        for (text, value) in [
            ("1,234", 1234),
            ("12,345,678", 12_345_678),
            ("1,2345", 2345),
            ("2024,100", 100),
            ("3, 7", 7),
        ] {
            assert_eq!(last(text), Some(BigRational::from_integer(value.into())), "{text}");
        }
        assert_eq!(last("-1,2345"), Some(BigRational::from_integer(2345.into())));
    }
}
