//! d1's training rewards, part by part.
//!
//! The rules are the published ones with their mistakes, since policies were trained on those. Not here: what
//! d1's evaluation says, which reads answers differently (see `evaluation.rs`).

use std::sync::LazyLock;

use regex::Regex;

use agrpo_mathematics::expression::{self, Grammar};
use agrpo_mathematics::patterns::pattern;
use agrpo_mathematics::python::{SPACE, is_digits, strip, uses_exactly};
use agrpo_spec::Protocol;

use crate::boxes::last_answer as last_box;
use crate::problem::{CELLS, Problem, cells};
use crate::{grade::Grade, hendrycks};

pub(crate) mod evaluation;

/// The largest distance of an expression from its target.
const NEAR: f64 = 1e-5;

pub(crate) fn reward(problem: &Problem, completion: &str) -> Grade {
    static SOFT: LazyLock<Regex> = LazyLock::new(|| {
        pattern(&format!("^<reasoning>.*?</reasoning>{SPACE}*<answer>.*?</answer>"))
    });
    // Python's `$` also stands before a last newline.
    static STRICT: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n\n?$")
    });
    let grade = |parts: &[(&'static str, f64)], correct: bool, extracted: Option<String>| {
        Grade::of(problem, Protocol::D1, parts, correct, extracted)
    };
    match problem {
        Problem::Gsm8k { answer, .. } => {
            let found = tagged(completion);
            let correct = answer.as_deref() == Some(found);
            let parts = [
                ("xmlcount", tag_count(completion)),
                ("soft_format", half(SOFT.is_match(completion))),
                ("strict_format", half(STRICT.is_match(completion))),
                ("int", half(is_digits(found))),
                ("correctness", if correct { 2.0 } else { 0.0 }),
            ];
            grade(&parts, correct, Some(found.to_owned()))
        }
        Problem::Math { answer, .. } => {
            let found = last_box(completion).unwrap_or(completion);
            let correct = hendrycks::equivalent(found, answer);
            let format = if completion.contains("<answer>") { 0.75 } else { 0.25 };
            let parts =
                [("correctness", if correct { 2.0 } else { 0.0 }), ("boxed_format", format)];
            grade(&parts, correct, Some(found.to_owned()))
        }
        Problem::Countdown { numbers, target } => {
            let found = last_answer(completion);
            let correct = found.is_some_and(|found| reaches(found, numbers, *target));
            let paid = if correct { 1.0 } else { found.map_or(0.0, |_| 0.1) };
            grade(&[("countdown", paid)], correct, found.map(str::to_owned))
        }
        Problem::Sudoku { puzzle, solution } => {
            let digits = |text: &str| -> String {
                text.chars().filter(|c| is_digits(c.encode_utf8(&mut [0; 4]))).collect()
            };
            let found =
                last_answer(completion).map(digits).filter(|found| !found.is_empty()).map(padded);
            let cells = cells(puzzle, solution, found.as_deref().unwrap_or_default());
            grade(&[("sudoku", cells.share())], cells.correct == cells.empty, found)
        }
    }
}

fn half(earned: bool) -> f64 {
    if earned { 0.5 } else { 0.0 }
}

/// The text behind the last `<answer>`, then before the first `</answer>`; stripped.
fn tagged(text: &str) -> &str {
    let behind = text.rsplit_once("<answer>").map_or(text, |(_, behind)| behind);
    strip(behind.split_once("</answer>").map_or(behind, |(before, _)| before))
}

/// An eighth for each of four tags that stands exactly once on its line, less a thousandth for each character behind
/// it.
fn tag_count(text: &str) -> f64 {
    let once = |tag: &str| text.matches(tag).count() == 1;
    // A separator that does not occur leaves the whole text behind it.
    let behind = |tag: &str| {
        let count = text.rsplit_once(tag).map_or(text, |(_, behind)| behind).chars().count();
        f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let mut paid = 0.0;
    if once("<reasoning>\n") {
        paid += 0.125;
    }
    if once("\n</reasoning>\n") {
        paid += 0.125;
    }
    if once("\n<answer>\n") {
        paid += 0.125;
        paid -= 0.001 * behind("\n</answer>\n");
    }
    if once("\n</answer>") {
        paid += 0.125;
        paid -= 0.001 * (behind("\n</answer>") - 1.0);
    }
    paid
}

/// The inside of the last `<answer>…</answer>`, stripped.
fn last_answer(text: &str) -> Option<&str> {
    answers().captures_iter(text).last()?.get(1).map(|inside| strip(inside.as_str()))
}

/// The inside of the first `<answer>…</answer>`, stripped.
fn first_answer(text: &str) -> Option<&str> {
    answers().captures(text)?.get(1).map(|inside| strip(inside.as_str()))
}

fn answers() -> &'static Regex {
    static ANSWER: LazyLock<Regex> = LazyLock::new(|| pattern("(?s)<answer>(.*?)</answer>"));
    &ANSWER
}

/// Whether an expression uses exactly these numbers and comes to the target.
fn reaches(text: &str, numbers: &[u32], target: u32) -> bool {
    static ALLOWED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[\d+\-*/().\s\x1c-\x1f]+$"));
    uses_exactly(text, numbers)
        && ALLOWED.is_match(text)
        && expression::evaluate(text, Grammar::Python)
            .and_then(|value| value.to_f64())
            .is_some_and(|value| (value - f64::from(target)).abs() < NEAR)
}

/// Cut or padded on the right to 16 characters.
fn padded(text: String) -> String {
    text.chars().chain(std::iter::repeat('0')).take(CELLS).collect()
}

#[cfg(test)]
mod tests;
