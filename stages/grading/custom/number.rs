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

use agrpo_mathematics::patterns::pattern;

/// Digits of a number, as many as Python reads.
const MAX_DIGITS: usize = 4300;

/// Powers of ten that a double has.
const MAX_EXPONENT: i32 = 308;

/// The characters before a sign that is apart from its number, as in `= - 5`. Behind any other character the sign is a
/// dash.
const BEFORE_SIGN: &str = "=≈<>≤≥([{:$*/×·,;";

/// Every sign; the plus signs come first.
const SIGNS: &str = "+\u{207A}\u{208A}\u{2795}\u{FF0B}-\u{02D7}\u{2010}-\u{2015}\u{207B}\u{208B}\u{2212}\u{2296}\u{2796}\u{FE58}\u{FE63}\u{FF0D}";
const PLUS: &[char] = &['+', '\u{207A}', '\u{208A}', '\u{2795}', '\u{FF0B}'];

/// Whether the last numbers of two texts differ by at most `tolerance`.
pub(super) fn is_near(left: &str, right: &str, tolerance: f64) -> bool {
    // The tolerance as it was written, not the double next to it.
    let tolerance = last(&tolerance.to_string());
    let pair = last(left).zip(last(right)).zip(tolerance);
    pair.is_some_and(|((left, right), tolerance)| (left - right).abs() <= tolerance)
}

/// Characters between the digits of a number.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let signs = SIGNS.replacen('-', r"\-", 1);
    pattern(&format!(
        r"(?x)
        (?P<signs>(?:[{signs}]|\{{[{signs}]\}})*)
        # Spaces, brackets, currencies, emphasis and commands that only format.
        (?P<gap>(?:
            [^\S\n] | [\p{{Sc}}(\[{{*_~|`'\x22]
            | \\(?:[\ ,!;:>${{(\[] | left | (?:boxed|fbox|text[a-z]*|math[a-z]+)\s*\{{)
        )*)
        (?P<whole>[0-9]+(?:(?:{SEPARATOR}|\{{(?:{SEPARATOR})\}})[0-9]+)*)?
        (?P<decimals>(?:\.[0-9]+)+)?
        (?P<exponent>[eE][-+\x{{2212}}]?[0-9]+)?"
    ))
});

/// Separators between the groups of a number, in text and in LaTeX.
const SEPARATOR: &str = r"(?:,\\!|,|\\[\ ,!;:>_]|\\(?:thin|med|thick)space\s*|[\ _'~\x{2019}\x{A0}\x{2007}-\x{2009}\x{202F}])";

/// The last number; its sign counts unless it is a subtraction, and commas and the like group its thousands. A
/// text that ends with what may be a part of a number, such as `1.000.000`, has none.
fn last(text: &str) -> Option<BigRational> {
    static INVISIBLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\p{Cf}"));
    let text = INVISIBLE.replace_all(text, "");
    let has_digits = |found: &regex::Captures<'_>| {
        found.name("whole").is_some() || found.name("decimals").is_some()
    };
    let found = NUMBER.captures_iter(&text).filter(has_digits).last()?;
    let group = |name: &str| found.name(name).map_or("", |group| group.as_str());
    let (whole, is_whole) = grouped(group("whole"));
    let decimals = group("decimals").trim_start_matches('.');
    let digits = format!("{whole}{decimals}");
    if digits.len() > MAX_DIGITS || decimals.contains('.') {
        return None;
    }
    let before = &text[..found.get(0)?.start()];
    // The rest of a number whose groups have other separators.
    let is_rest = !is_whole || before.ends_with(|c: char| c.is_ascii_digit());
    if whole.len() > 1 && (whole.bytes().all(|b| b == b'0') || (is_rest && whole.starts_with('0')))
    {
        return None;
    }
    let exponent = group("exponent").get(1..).map(|digits| digits.replace('\u{2212}', "-"));
    let exponent: i32 = exponent.map_or(Ok(0), |digits| digits.parse()).ok()?;
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let scale = exponent - i32::try_from(decimals.len()).ok()?;
    let value = BigRational::from_integer(digits.parse().ok()?)
        * BigRational::from_integer(BigInt::from(10)).pow(scale);
    // In `1,2345` no sign is left to the last part.
    let is_minus = is_whole && is_signed(before, group("gap")) && {
        let signs = group("signs").chars().filter(|c| !"{}".contains(*c) && !PLUS.contains(c));
        signs.count() % 2 == 1
    };
    Some(if is_minus { -value } else { value })
}

/// Whether a sign between this text and this gap belongs to the number: in `5-3` it belongs to the subtraction.
fn is_signed(before: &str, gap: &str) -> bool {
    let is_space = |c: char| c.is_whitespace() && c != '\n';
    if !gap.replace(r"\ ", "").contains(is_space) {
        return !before.ends_with(|c: char| c.is_alphanumeric() || ")]}%".contains(c));
    }
    let before = before.trim_end_matches(is_space);
    before.is_empty() || before.ends_with(|c| BEFORE_SIGN.contains(c))
}

/// Joins groups of three digits behind up to three, all with one separator, to one number; else takes the last group.
/// Returns also whether that is the whole text.
fn grouped(whole: &str) -> (String, bool) {
    let is_digit = |c: char| c.is_ascii_digit();
    let groups: Vec<&str> =
        whole.split(|c| !is_digit(c)).filter(|group| !group.is_empty()).collect();
    let parts: Vec<&str> = whole.split(is_digit).filter(|part| !part.is_empty()).collect();
    // If separators differ, the last run of equal ones counts.
    let alike = parts.iter().rev().take_while(|part| parts.last() == Some(part)).count();
    let run = &groups[groups.len().saturating_sub(alike + 1)..];
    let is_number = run.first().is_some_and(|first| first.len() <= 3)
        && run.iter().skip(1).all(|group| group.len() == 3);
    let last =
        if is_number { run.concat() } else { run.last().copied().unwrap_or_default().to_owned() };
    (last, parts.is_empty() || (is_number && run.len() == groups.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minus_is_a_minus() {
        for minus in "-\u{2D7}\u{207B}\u{208B}\u{2296}\u{2796}\u{2010}\u{2011}\u{2012}\u{2013}\u{2014}\u{2212}\u{FE63}\u{FF0D}".chars() {
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
    fn a_sign_counts_whatever_formats_the_number_behind_it() {
        for text in "-$5 / -\\$5 / -€5 / -(5) / -{5} / {-}5 / -**5** / -\\ 5 / \\boxed{-\\,5} / \
            $-$5 / \u{2212}\u{200B}5 / -\\boxed{5} / -\\left(5\\right) / it is -$5 / -|5| / \
            x = -\\text{5} / (-$ 5)"
            .split(" / ")
        {
            assert!(is_near("-5", text, 0.0) && !is_near("5", text, 0.0), "{text}");
        }
        for text in "$10-$5 / 10-(5) / $10 - $5 / cost:\n- $5 / (1)-(5) / it was - (5) / \
            -\\sqrt{5} / -x(5)"
            .split(" / ")
        {
            assert!(is_near("5", text, 0.0) && !is_near("-5", text, 0.0), "{text}");
        }
    }

    #[test]
    fn groups_of_thousands_are_one_number() {
        for text in "1{,}000 / 1\\,000 / 1 000 / 1'000 / 1_000 / 1\u{202F}000 / 1\u{A0}000 / \
            1\u{2009}000 / 1,\\!000 / 1\\thinspace000 / 1{\\,}000 / 1~000 / 1\\ 000 / \
            1\u{2019}000 / 1\u{200B}000 / it is 1 000. / 3; 1 000"
            .split(" / ")
        {
            assert!(is_near("1000", text, 0.0) && !is_near("0", text, 0.0), "{text}");
        }
        for (text, value) in [
            ("1 2,345", "2345"),
            ("3 7", "7"),
            ("1 234 5", "5"),
            ("-1 000", "-1000"),
            ("-3 7", "7"),
        ] {
            assert!(is_near(value, text, 0.0), "{text}");
        }
    }

    #[test]
    fn numbers_are_exact() {
        assert!(!is_near("9007199254740993", "9007199254740992", 0.0));
        assert!(is_near("9007199254740993", "9,007,199,254,740,993.0", 0.0));
        assert!(!is_near("0.1", "0.10000000000000000001", 0.0));
        assert!(is_near("0.3", "3e-1", 0.0));
        assert!(is_near("1", "1.01", 0.01) && !is_near("1", "1.0100000001", 0.01));
        assert!(is_near("1e20", "100000000000000000000", 0.0));
        assert!(is_near("007", "7", 0.0) && is_near("0.5", ".5", 0.0));
    }

    #[test]
    fn a_text_without_a_number_has_none() {
        for text in "none / nan / inf / 1e999 / 1e-999 / 1e99999999999 / ٣ / ３ / - / . / \
            1.000.000 / 1, 000 / 000 / 1 0000 / 1,0000"
            .split(" / ")
        {
            assert_eq!(last(text), None, "{text}");
        }
        assert_eq!(last(""), None);
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
