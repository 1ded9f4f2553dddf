//! Equality of answers as strings, after Hendrycks' MATH.
//!
//! Nothing is evaluated: `0.25` is not `\frac{1}{4}`. The order of the rules is part of the result. A rule
//! that cannot be applied is an error, on which [`equivalent`] compares the raw texts.

use agrpo_mathematics::braces::{braced_fractions, braced_roots, fraction};
use agrpo_mathematics::python::strip;

/// Whether two answers are equal once both are normalised; raw where either cannot be.
pub(crate) fn equivalent(left: &str, right: &str) -> bool {
    match (normalise(left), normalise(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn normalise(text: &str) -> Option<String> {
    let mut text = text.replace('\n', "").replace("\\!", "").replace("\\\\", "\\");
    for (from, to) in [
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
    ] {
        text = text.replace(from, to);
    }
    let mut text =
        without_unit(&text)?.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if let Some((left, right)) = text.split_once('=')
        && !right.contains('=')
        && left.chars().count() <= 2
    {
        text = right.to_owned();
    }
    // A root without anything behind it is an error.
    if text.split("\\sqrt").skip(1).any(str::is_empty) {
        return None;
    }
    let text = braced_roots(&text, |piece| piece, &['{']).replace(' ', "");
    let text = match braced_fractions(&text, |piece| piece) {
        Ok(braced) => braced,
        // A fraction without anything behind it is an error too; with a single character behind it, the whole rule is
        // not applied.
        Err("") => return None,
        Err(_) => text,
    };
    let text = if text == "0.5" { "\\frac{1}{2}".to_owned() } else { text };
    quotient(text)
}

/// The text before `\text{ `; an error if that occurs twice.
fn without_unit(text: &str) -> Option<&str> {
    match text.split_once("\\text{ ") {
        Some((_, rest)) if rest.contains("\\text{ ") => None,
        Some((value, _)) => Some(value),
        None => Some(text),
    }
}

/// `3/4` as `\frac{3}{4}`. With one slash, an error unless both sides are whole numbers.
fn quotient(text: String) -> Option<String> {
    match text.split_once('/').filter(|(_, below)| !below.contains('/')) {
        Some((above, below)) if !is_whole(above) || !is_whole(below) => None,
        _ => Some(fraction(&text).unwrap_or(text)),
    }
}

/// Whether Python's `int` reads the text.
fn is_whole(text: &str) -> bool {
    let text = strip(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.split('_').all(|run| !run.is_empty() && run.chars().all(char::is_numeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_after_the_rules() {
        for (left, right) in [
            ("\\dfrac12", "\\frac{1}{2}"),
            ("0.5", "1/2"),
            (".5", "\\tfrac 1 2"),
            ("x=7", "7"),
            ("k = 3", "k=3"),
            ("\\left( 3, 4 \\right)", "(3,4)"),
            ("90^\\circ", "90"),
            ("5 \\text{ cm}", "5"),
            ("\\sqrt3", "\\sqrt{3}"),
            ("10\\%", "10"),
            ("1\\!,\\!000", "1,000"),
            ("\n4\n", "4"),
            ("\\frac{1}2", "\\frac{1}2"),
        ] {
            assert!(equivalent(left, right), "{left} {right}");
        }
    }

    #[test]
    fn nothing_is_evaluated() {
        for (left, right) in [
            ("0.25", "\\frac{1}{4}"),
            ("\\frac{3}{24}", "\\frac{1}{8}"),
            ("58500", "58,500"),
            ("C", "\\text{(C)}"),
            ("10%", "10"),
            ("+1/2", "1/2"),
            ("01/2", "1/2"),
            ("xyz=7", "7"),
            ("\\frac1", "1"),
        ] {
            assert!(!equivalent(left, right), "{left} {right}");
        }
    }

    #[test]
    fn an_error_compares_raw_texts() {
        assert_eq!(normalise("x/3"), None);
        assert_eq!(normalise("1 \\text{ a} \\text{ b}"), None);
        assert_eq!(normalise("\\sqrt"), None);
        assert_eq!(normalise("\\frac"), None);
        assert!(equivalent("\\pi/2", "\\pi/2") && !equivalent("\\pi/2", "\\pi /2"));
        assert!(!equivalent("\\sqrt", " \\sqrt"));
    }
}
