//! AGRPO's training rewards and its evaluation.
//!
//! Mathematics is compared by value (see `agrpo-mathematics`). Tags may be written in any case, and the first of
//! each counts. Not here: d1's rules, which read the last answer and compare texts.

use std::sync::LazyLock;

use regex::Regex;

use agrpo_mathematics::patterns::pattern;
use agrpo_mathematics::python::{SPACE, digit_runs, int, strip, uses_exactly, zfill};
use agrpo_mathematics::{parse, parse_latex, same};
use agrpo_spec::Protocol;

use crate::boxes::first_boxed;
use crate::grade::{Extracted, Grade, Verdict};
use crate::problem::{CELLS, Problem, cells, keeps_clues};

/// What a right answer earns.
const RIGHT: f64 = 3.0;

pub(crate) fn reward(problem: &Problem, completion: &str) -> Grade {
    static THINK: LazyLock<Regex> = LazyLock::new(|| pattern("(?is)<think>.*?</think>"));
    let tags = [
        ("thinking_format", if THINK.is_match(completion) { 0.5 } else { 0.0 }),
        ("answer_format", if answer(completion).is_some() { 0.5 } else { 0.0 }),
    ];
    let (parts, correct, extracted) = match problem {
        Problem::Gsm8k { .. } | Problem::Math { .. } => {
            let found = read(completion);
            let correct = agrees(problem, found);
            (vec![("correctness", paid(correct))], correct, Some(found.to_owned()))
        }
        Problem::Countdown { numbers, target } => {
            let found = answer(completion);
            let correct = found.is_some_and(|found| reaches(found, numbers, *target));
            let format = found.map_or(0.0, |found| equation_format(found, numbers, *target));
            let parts = vec![("countdown_format", format), ("countdown_correct", paid(correct))];
            (parts, correct, found.map(str::to_owned))
        }
        Problem::Sudoku { puzzle, solution } => {
            let found = grid(read(completion));
            let cells = cells(puzzle, solution, &found);
            let format = answer(completion).map_or(0.0, |found| grid_format(found, puzzle));
            let parts = vec![("sudoku_format", format), ("sudoku_correct", RIGHT * cells.share())];
            (parts, cells.correct == cells.empty, Some(found))
        }
    };
    Grade::of(problem, Protocol::Agrpo, &[&tags[..], &parts].concat(), correct, extracted)
}

/// Grades a completion as the evaluation does. What is extracted is the parser's answer, before the task's own rule
/// reads a number, an equation or a grid in it.
pub(crate) fn verdict(problem: &Problem, completion: &str) -> Verdict {
    let found = read(completion);
    let (correct, cells) = match problem {
        Problem::Gsm8k { .. } => {
            (agrees(problem, digit_runs(found).first().copied().unwrap_or(found)), None)
        }
        Problem::Math { .. } => (agrees(problem, found), None),
        Problem::Countdown { numbers, target } => {
            // An equation begins behind the equals signs that its line begins with; the last one counts.
            let mut equations = found
                .split('\n')
                .map(|line| line.trim_start_matches('='))
                .filter(|line| line.contains('='));
            (equations.next_back().is_some_and(|line| reaches(line, numbers, *target)), None)
        }
        Problem::Sudoku { puzzle, solution } => {
            let cells = cells(puzzle, solution, &grid(found));
            (cells.correct == cells.empty, Some(cells))
        }
    };
    Verdict { extracted: Some(Extracted::Text(found.to_owned())), correct, cells }
}

fn paid(correct: bool) -> f64 {
    if correct { RIGHT } else { 0.0 }
}

/// The text inside the first answer, stripped.
fn answer(text: &str) -> Option<&str> {
    static ANSWER: LazyLock<Regex> = LazyLock::new(|| pattern("(?is)<answer>(.*?)</answer>"));
    ANSWER.captures(text)?.get(1).map(|inside| strip(inside.as_str()))
}

/// The first answer, or the whole text; of that, the first box unless it is empty.
fn read(text: &str) -> &str {
    let text = answer(text).unwrap_or(text);
    first_boxed(text).unwrap_or(text)
}

fn agrees(problem: &Problem, found: &str) -> bool {
    problem.answer().is_some_and(|gold| same(&parse_latex(gold), &parse_latex(found)))
}

/// Whether the left side of an equation uses the numbers and comes to the target. The right side is not read.
fn reaches(text: &str, numbers: &[u32], target: u32) -> bool {
    let Some((left, _)) = text.split_once('=') else { return false };
    uses_exactly(left, numbers) && same(&parse(&target.to_string()), &parse(left))
}

/// A third each for a right side that is the target, a left side of arithmetic, and the right numbers. More than one
/// equals sign costs a half.
fn equation_format(text: &str, numbers: &[u32], target: u32) -> f64 {
    static ARITHMETIC: LazyLock<Regex> =
        LazyLock::new(|| pattern(&format!(r"^(?:\d|[+\-*/()]|{SPACE})+$")));
    let Some((left, rest)) = text.split_once('=') else { return 0.0 };
    let right = rest.rsplit_once('=').map_or(rest, |(_, last)| last);
    let (left, right) = (strip(left), strip(right));
    let is_target = digit_runs(right) == [right] && int(right) == Some(target);
    let earned = [is_target, ARITHMETIC.is_match(left), uses_exactly(left, numbers)];
    let fine = if rest.contains('=') { 0.5 } else { 0.0 };
    earned.iter().filter(|earned| **earned).fold(-fine, |sum, _| sum + 1.0 / 3.0)
}

/// For 16 characters: a quarter, another if they are four of each digit, a half if all clues are kept.
fn grid_format(text: &str, puzzle: &str) -> f64 {
    if text.chars().count() != CELLS {
        return 0.0;
    }
    let count = |digit: char| text.chars().filter(|cell| *cell == digit).count();
    let balanced = ('1'..='4').all(|digit| count(digit) == 4);
    0.25 + if balanced { 0.25 } else { 0.0 } + if keeps_clues(puzzle, text) { 0.5 } else { 0.0 }
}

/// Padded on the left to 16 characters, or cut.
fn grid(text: &str) -> String {
    zfill(text, CELLS).chars().take(CELLS).collect()
}

#[cfg(test)]
mod tests;
