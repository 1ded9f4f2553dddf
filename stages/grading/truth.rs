//! Problems of completions that were made elsewhere, from a row's question and ground truth.
//!
//! Reads the shapes in which graded completions are published. Refuses any other value, with the field's name.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use agrpo_mathematics::{patterns::pattern, python::strip};
use agrpo_spec::{Benchmark, excerpt};

use crate::problem::{CELLS, Problem, keeps_clues};
use crate::{boxes::last_answer, data::is_number};

/// Why a row cannot be graded. `Display` is one line: field, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TruthError {
    /// The row's truth has another shape than the task's.
    #[error("ground_truth = {found}: expected {expected}")]
    GroundTruth {
        /// The value as written, cut to a readable length.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The row's question does not hold a puzzle.
    #[error(
        "question = {found}: expected a puzzle of 16 digits from 0 to 4, with a 0 among them and the solution's digits elsewhere"
    )]
    Puzzle {
        /// The question, cut to a readable length.
        found: String,
    },
}

impl TruthError {
    /// A truth of another shape than expected.
    pub fn of(truth: &Value, expected: &'static str) -> Self {
        Self::GroundTruth { found: excerpt(&truth.to_string()), expected }
    }
}

/// The problem of a row.
///
/// `ground_truth` is for GSM8K a number, a text that ends in one (`… #### 1,234`), or null where none can be
/// right; for MATH LaTeX, perhaps boxed; for Countdown `[[3, 7, 8], 29]` or
/// `{"numbers": [3, 7, 8], "target": 29}`; for Sudoku the solution as 16 digits, with the puzzle in
/// `question`, which no other task needs.
/// Error where a field has none of these shapes.
pub fn problem_of_truth(
    benchmark: Benchmark,
    question: &str,
    ground_truth: &Value,
) -> Result<Problem, TruthError> {
    let refuse = |expected| TruthError::of(ground_truth, expected);
    match benchmark {
        Benchmark::Gsm8k => {
            let expected = "a number, a text such as \"1,234\" or \"... #### 1,234\", or null";
            let answer = gsm8k(ground_truth).ok_or_else(|| refuse(expected))?;
            Ok(Problem::Gsm8k { question: question.to_owned(), answer })
        }
        Benchmark::Math => {
            let truth = ground_truth.as_str().filter(|truth| !strip(truth).is_empty());
            let truth = truth.ok_or_else(|| refuse("LaTeX as a string that is not empty"))?;
            let answer = last_answer(truth).unwrap_or(truth).to_owned();
            Ok(Problem::Math { question: question.to_owned(), answer })
        }
        Benchmark::Countdown => {
            let (numbers, target) = countdown_of_truth(ground_truth)?;
            Ok(Problem::Countdown { numbers, target })
        }
        Benchmark::Sudoku => {
            let solution = ground_truth
                .as_str()
                .filter(|grid| {
                    grid.len() == CELLS && grid.bytes().all(|c| (b'1'..=b'4').contains(&c))
                })
                .ok_or_else(|| refuse("the solution as a string of 16 digits from 1 to 4"))?;
            let puzzle = puzzle(question)
                .filter(|puzzle| puzzle.contains('0') && keeps_clues(puzzle, solution));
            let puzzle = puzzle
                .ok_or_else(|| TruthError::Puzzle { found: excerpt(&format!("{question:?}")) })?;
            Ok(Problem::Sudoku { puzzle: puzzle.to_owned(), solution: solution.to_owned() })
        }
    }
}

/// Either way to write a Countdown problem.
#[derive(Deserialize)]
#[serde(untagged)]
enum Countdown {
    Named { numbers: Vec<u32>, target: u32 },
    Pair(Vec<u32>, u32),
}

/// The numbers and the target of a Countdown row, by its truth.
/// Error where it has neither shape, or no numbers.
pub fn countdown_of_truth(truth: &Value) -> Result<(Vec<u32>, u32), TruthError> {
    match Countdown::deserialize(truth) {
        Ok(Countdown::Named { numbers, target } | Countdown::Pair(numbers, target))
            if !numbers.is_empty() =>
        {
            Ok((numbers, target))
        }
        _ => Err(TruthError::of(truth, r#"{"numbers": [3, 5], "target": 8} or [[3, 5], 8]"#)),
    }
}

/// The gold text; the inner `None` is a problem without a right answer.
fn gsm8k(truth: &Value) -> Option<Option<String>> {
    match truth {
        Value::Null => Some(None),
        // A whole number is written without its point, as in the data set.
        Value::Number(number) => match number.as_f64()? {
            value if value.fract() == 0.0 && value.abs() < 1e15 => {
                Some(Some(format!("{value:.0}")))
            }
            _ => Some(Some(number.to_string())),
        },
        Value::String(text) => {
            let answer = strip(text.split("####").nth(1).unwrap_or(text));
            is_number(answer).then(|| Some(answer.to_owned()))
        }
        _ => None,
    }
}

/// The puzzle at the beginning of the question, behind `Sudoku puzzle: `, or the first run of 16 digits.
fn puzzle(question: &str) -> Option<&str> {
    static PLACES: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        [
            pattern(r"^([0-4]{16})"),
            pattern(r"Sudoku puzzle: ([0-4]{16})"),
            pattern(r"\b([0-4]{16})\b"),
        ]
    });
    PLACES.iter().find_map(|place| Some(place.captures(question)?.get(1)?.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn truths_of_every_task() {
        let read = |benchmark, question: &str, truth| {
            problem_of_truth(benchmark, question, &truth).unwrap()
        };
        let gsm8k = |truth| match read(Benchmark::Gsm8k, "q", truth) {
            Problem::Gsm8k { answer, .. } => answer,
            other => panic!("{other:?}"),
        };
        assert_eq!(gsm8k(json!(18.0)).as_deref(), Some("18"));
        assert_eq!(gsm8k(json!(-3)).as_deref(), Some("-3"));
        assert_eq!(gsm8k(json!(2.5)).as_deref(), Some("2.5"));
        assert_eq!(gsm8k(json!("so #### 1,234 ")).as_deref(), Some("1,234"));
        assert_eq!(gsm8k(json!(null)), None);
        let math = read(Benchmark::Math, "q", json!("thus $\\boxed{\\frac12}$"));
        assert_eq!(math, Problem::Math { question: "q".into(), answer: "\\frac12".into() });
        let countdown = Problem::Countdown { numbers: vec![3, 7, 8], target: 29 };
        for truth in [json!([[3, 7, 8], 29]), json!({"numbers": [3, 7, 8], "target": 29})] {
            assert_eq!(read(Benchmark::Countdown, "", truth), countdown);
        }
        let sudoku = Problem::Sudoku {
            puzzle: "0204032001400402".into(),
            solution: "1234432121433412".into(),
        };
        for question in
            ["0204032001400402", "Sudoku puzzle: 0204032001400402\n", "x 0204032001400402 y"]
        {
            assert_eq!(read(Benchmark::Sudoku, question, json!("1234432121433412")), sudoku);
        }
    }

    #[test]
    fn an_invalid_truth_is_named() {
        for (benchmark, question, truth, expected) in [
            (Benchmark::Gsm8k, "", json!([1]), "ground_truth = [1]: expected a number"),
            (Benchmark::Gsm8k, "", json!("seven"), "ground_truth = \"seven\": expected a number"),
            (Benchmark::Gsm8k, "", json!("so 5"), "ground_truth = \"so 5\": expected a number"),
            (Benchmark::Gsm8k, "", json!("nan"), "ground_truth = \"nan\": expected a number"),
            (Benchmark::Math, "", json!(3), "ground_truth = 3: expected LaTeX"),
            (Benchmark::Countdown, "", json!([[], 3]), "ground_truth = [[],3]: expected {"),
            (Benchmark::Countdown, "", json!([[49, -1], 3]), "ground_truth = [[49,-1],3]: expect"),
            (Benchmark::Countdown, "", json!("49,55"), "ground_truth = \"49,55\": expected {"),
            (Benchmark::Countdown, "", json!({"target": 3}), "ground_truth = {\"target\":3}: "),
            (Benchmark::Countdown, "", json!([[1], 2.5]), "ground_truth = [[1],2.5]: expected {"),
            (Benchmark::Sudoku, "", json!("12"), "ground_truth = \"12\": expected the solution"),
            (
                Benchmark::Sudoku,
                "?",
                json!("1234432121433412"),
                "question = \"?\": expected a puzzle",
            ),
            (Benchmark::Sudoku, "0204032001400401", json!("1234432121433412"), "question = "),
        ] {
            let error = problem_of_truth(benchmark, question, &truth).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains('\n'), "{error}");
        }
    }
}
