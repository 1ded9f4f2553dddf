//! d1's evaluation: extracts a completion's answer and grades it.
//!
//! Completions start inside the reasoning (the tag was put behind the prompt) and still carry their special
//! tokens. Accuracy is the share of right answers; for Sudoku, of blanks over all puzzles together.

use std::sync::LazyLock;

use regex::Regex;

use agrpo_mathematics::patterns::pattern;
use agrpo_mathematics::python::{SPACE, float, is_space, strip};

use super::{first_answer, padded, reaches};
use crate::grade::{Extracted, Verdict};
use crate::problem::{CELLS, Problem, cells};
use crate::{boxes::last_answer, hendrycks};

/// Grades a completion as d1's evaluation does.
pub(crate) fn verdict(problem: &Problem, completion: &str) -> Verdict {
    let verdict = |extracted, correct| Verdict { extracted, correct, cells: None };
    let text = |text: &str| Some(Extracted::Text(text.to_owned()));
    match problem {
        Problem::Gsm8k { answer, .. } => {
            let found = number(completion);
            let gold = answer.as_deref().and_then(gold);
            verdict(found.map(Extracted::Number), found.is_some() && found == gold)
        }
        Problem::Math { answer, .. } => {
            let boxed = last_answer(completion).filter(|found| !found.is_empty());
            let found = boxed.or_else(|| first_answer(completion));
            let correct = found.is_some_and(|found| hendrycks::equivalent(found, answer));
            verdict(found.and_then(text), correct)
        }
        Problem::Countdown { numbers, target } => {
            let found = equation_free(completion);
            verdict(text(&found), reaches(&found, numbers, *target))
        }
        Problem::Sudoku { puzzle, solution } => {
            // Without a grid, the answer is an empty text.
            let found = grid(completion).map_or_else(String::new, |found| {
                padded(found.chars().filter(|c| !is_space(*c)).collect())
            });
            let cells = cells(puzzle, solution, &found);
            Verdict { cells: Some(cells), ..verdict(text(&found), cells.correct == cells.empty) }
        }
    }
}

/// A gold answer without its commas. A negative one can never be scored right.
fn gold(answer: &str) -> Option<f64> {
    static GOLD: LazyLock<Regex> =
        LazyLock::new(|| pattern(&format!(r"^{SPACE}*\$?([\d,]+(?:\.\d+)?)")));
    let digits = GOLD.captures(answer)?.get(1)?.as_str().replace(',', "");
    float(&digits)
}

/// The first box that holds a number; without one, the last number of the first answer.
fn number(text: &str) -> Option<f64> {
    static BOX: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\boxed\{(.*?)\}"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?\d+\.?\d*"));
    let boxes = BOX.captures_iter(text).filter_map(|found| found.get(1));
    for inside in boxes.map(|inside| strip(inside.as_str())) {
        // A box of dots stands for "fill in here".
        if inside.chars().all(|c| c == '.') {
            continue;
        }
        let first = || NUMBER.find(inside).and_then(|first| float(first.as_str()));
        if let Some(value) = float(inside).or_else(first) {
            return Some(value);
        }
    }
    let inside = first_answer(text).filter(|inside| !inside.is_empty())?;
    float(inside).or_else(|| NUMBER.find_iter(inside).last().and_then(|last| float(last.as_str())))
}

/// The expression of a Countdown completion: what stands before the first equals sign that follows arithmetic.
/// Here alone digits are those of ASCII and the only space is the plain one.
fn equation_free(text: &str) -> String {
    static EQUATION: LazyLock<Regex> = LazyLock::new(|| pattern(r"([0-9+\-*/() ]+)=[0-9. ]+"));
    let found = last_answer(text).or_else(|| first_answer(text)).unwrap_or(text);
    let found = found.replace("\\div", "/").replace("\\times", "*").replace("\\cdot", "*");
    match EQUATION.captures(&found).and_then(|captures| captures.get(1)) {
        Some(left) => strip(left.as_str()).to_owned(),
        None => found,
    }
}

/// A grid, by the first of five rules that finds anything.
fn grid(text: &str) -> Option<&str> {
    static RULES: LazyLock<[Regex; 5]> = LazyLock::new(|| {
        [
            pattern(&format!(r"(?s)<answer>.*?```{SPACE}*([\d\s\x1c-\x1f]+)```")),
            pattern(r"(?s)<answer>(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|</answer>)"),
            pattern(&format!(r"(?s)</answer>{SPACE}*(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|$)")),
            pattern(&format!(r"(?s)(\d{{{CELLS}}}){SPACE}*</answer>")),
            pattern(&format!(r"\b(\d{{{CELLS}}})\b")),
        ]
    });
    let mut found = RULES.iter().filter_map(|rule| rule.captures(text)?.get(1));
    found.find_map(|inside| Some(strip(inside.as_str())).filter(|inside| !inside.is_empty()))
}

#[cfg(test)]
mod tests;
