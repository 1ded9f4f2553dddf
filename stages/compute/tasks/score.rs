//! Grades completions of any origin, one JSON row at a time, by this project's rules.
//!
//! The answer is the text in the last `<answer>…</answer>`, else the text up to the first `<|endoftext|>`. Does not
//! apply rules that accept `\boxed{…}`, equations, decimals or partial credit.

use agrpo_grading::{TruthError, countdown_of_truth};
use agrpo_spec::excerpt;
use serde_json::Value;

use super::{Grade, Question, grade, sudoku};

/// Why a row cannot be graded. `Display` is one line: field, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no such task.
    #[error("{0:?} is not a task: expected countdown or sudoku")]
    Task(String),
    /// The row's truth has another shape than the task's.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// The row's question does not hold a puzzle.
    #[error("question: no run of exactly 16 digits from 0 to 4 with a 0 among them")]
    Question,
    /// The solution is not one of the puzzle's.
    #[error("ground_truth = {solution:?}: not a solution of the question's puzzle {puzzle}")]
    Solution {
        /// The puzzle found in the question.
        puzzle: String,
        /// The truth as written.
        solution: String,
    },
}

/// Grades one row. `countdown` reads `{"numbers": [3, 5], "target": 8}` or `[[3, 5], 8]` as `ground_truth`;
/// `sudoku` reads the solution there, the only right one, and finds the puzzle in `question`.
pub fn score_row(
    task: &str,
    question: &str,
    ground_truth: &Value,
    completion: &str,
) -> Result<Grade, RowError> {
    let question = match task {
        "countdown" => {
            let (numbers, target) = countdown_of_truth(ground_truth)?;
            Question::Countdown { numbers, target }
        }
        "sudoku" => sudoku_question(question, ground_truth)?,
        other => return Err(RowError::Task(other.to_owned())),
    };
    Ok(grade(&question, answer(completion)))
}

fn sudoku_question(question: &str, truth: &Value) -> Result<Question, RowError> {
    let expected = "the solution as a string of 16 digits";
    let solution = truth.as_str().ok_or_else(|| TruthError::of(truth, expected))?;
    let is_puzzle = |run: &&str| {
        run.len() == sudoku::CELLS
            && run.contains('0')
            && run.bytes().all(|digit| (b'0'..=b'4').contains(&digit))
    };
    let puzzle = question
        .split(|c: char| !c.is_ascii_digit())
        .find(is_puzzle)
        .ok_or(RowError::Question)?
        .to_owned();
    if !sudoku::is_solution(&puzzle, solution) {
        return Err(RowError::Solution { puzzle, solution: excerpt(solution) });
    }
    Ok(Question::Sudoku { puzzle, solution: solution.to_owned() })
}

fn answer(completion: &str) -> &str {
    let tagged = || {
        let last_close = completion.rfind("</answer>")?;
        let (_, after_open) = completion[..last_close].rsplit_once("<answer>")?;
        let start = last_close - after_open.len();
        completion[start..].split_once("</answer>").map(|(inside, _)| inside)
    };
    let untagged = || completion.split_once("<|endoftext|>").map_or(completion, |(text, _)| text);
    tagged().unwrap_or_else(untagged).trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_right(task: &str, question: &str, truth: &Value, completion: &str) -> bool {
        score_row(task, question, truth, completion).unwrap().correct
    }

    #[test]
    fn the_last_closed_answer_counts() {
        for (completion, expected) in [
            ("3+5", "3+5"),
            (" \n 3+5\n", "3+5"),
            ("3+5<|endoftext|><|endoftext|>", "3+5"),
            ("so <answer>\n3+5\n</answer>", "3+5"),
            ("<answer>1</answer> no: <answer> 3+5 </answer><|eot_id|>", "3+5"),
            ("<answer>3+5</answer> or <answer>9", "3+5"),
            ("<answer>3+5</answer></answer>", "3+5"),
            ("<answer>1 <answer>3+5</answer>", "3+5"),
            ("<|endoftext|><answer>3+5</answer>", "3+5"),
            ("</answer>3+5<answer>", "</answer>3+5<answer>"),
            ("<answer></answer>", ""),
            ("", ""),
        ] {
            assert_eq!(answer(completion), expected, "{completion}");
        }
    }

    #[test]
    fn countdown_rows() {
        let question = "Numbers: [49, 55, 53]\nTarget: 51";
        for truth in [json!([[49, 55, 53], 51]), json!({"numbers": [49, 55, 53], "target": 51})] {
            let right = "<think>x</think><answer>\n49 + 55 - 53\n</answer>";
            assert!(is_right("countdown", question, &truth, right));
            assert!(!is_right("countdown", question, &truth, "<answer>55-53</answer>"));
            assert!(!is_right("countdown", question, &truth, "\\boxed{49+55-53}"));
            assert!(!is_right("countdown", question, &truth, "49+55-53=51"));
            let empty = score_row("countdown", question, &truth, " ").unwrap();
            assert_eq!((empty.correct, empty.extracted), (false, None));
        }
        let error = score_row("countdown", "", &json!([[], 3]), "").unwrap_err().to_string();
        assert!(error.starts_with("ground_truth = [[],3]: expected {"), "{error}");
    }

    #[test]
    fn sudoku_rows() {
        let question = "Solve the following Sudoku puzzle: 0204032001400402\n";
        let truth = json!("1234432121433412");
        let grade = |answer: &str| score_row("sudoku", question, &truth, answer).unwrap();
        assert!(grade("<answer>\n1234432121433412\n</answer>").correct);
        let half = grade("1204032121430402");
        assert_eq!((half.correct, half.reward, half.parts["cells"]), (false, 0.0, 0.5));
        let error = |question, truth| score_row("sudoku", question, &truth, "").unwrap_err();
        assert_eq!(error("12344321214334120", truth.clone()), RowError::Question);
        assert_eq!(error("1234432121433412", truth.clone()), RowError::Question);
        assert!(matches!(error(question, json!("1243432121433412")), RowError::Solution { .. }));
        assert!(matches!(
            error(question, json!(1)),
            RowError::Truth(TruthError::GroundTruth { .. })
        ));
        assert_eq!(
            score_row("gsm8k", question, &truth, "").unwrap_err().to_string(),
            "\"gsm8k\" is not a task: expected countdown or sudoku"
        );
    }
}
