//! AGRPO's rewards and evaluation, rule by rule, on completions written for the rule.

use super::*;
use crate::Cells;

const EPSILON: f64 = 1e-9;

fn parts(problem: &Problem, completion: &str) -> Vec<f64> {
    let grade = reward(problem, completion);
    let names = crate::reward_parts(problem.benchmark(), Protocol::Agrpo);
    let parts: Vec<f64> = names.iter().map(|name| grade.parts[name]).collect();
    assert!((grade.reward - parts.iter().sum::<f64>()).abs() < EPSILON);
    parts
}

fn near(found: &[f64], expected: &[f64], about: &str) {
    let close = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < EPSILON);
    assert!(close, "{about}: {found:?} is not {expected:?}");
}

#[test]
fn the_first_answer_and_its_first_box_are_read() {
    for (text, answer) in [
        ("<answer>\n\\boxed{5}\n</answer> <answer>6</answer>", "5"),
        ("<Answer> 5 </ANSWER>", "5"),
        ("\\boxed{5} or \\boxed{6}", "5"),
        ("<answer>\\boxed{}5</answer>", "\\boxed{}5"),
        ("<answer>\\boxed{5</answer>", "\\boxed{5"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("nothing", "nothing"),
    ] {
        assert_eq!(read(text), answer, "{text}");
    }
}

#[test]
fn mathematics_pays_tags_and_value() {
    let problem = Problem::Gsm8k { question: String::new(), answer: Some("1,234".into()) };
    for (text, expected) in [
        ("<think>a</think>\n<answer>\\boxed{1234}</answer>", [0.5, 0.5, 3.0]),
        ("<THINK>a</think> \\boxed{1,234.0}", [0.5, 0.0, 3.0]),
        ("<answer>1234 books</answer>", [0.0, 0.5, 0.0]),
        ("<think>", [0.0, 0.0, 0.0]),
    ] {
        near(&parts(&problem, text), &expected, text);
    }
    let unanswerable = Problem::Gsm8k { question: String::new(), answer: None };
    near(&parts(&unanswerable, "\\boxed{5}"), &[0.0, 0.0, 0.0], "no gold");
}

#[test]
fn countdown_pays_thirds_and_value() {
    let problem = Problem::Countdown { numbers: vec![3, 7, 8], target: 29 };
    let third = 1.0 / 3.0;
    for (text, expected) in [
        ("<answer>7*3+8 = 29</answer>", [1.0, 3.0]),
        ("<answer>7*3+8 = 28</answer>", [2.0 * third, 3.0]),
        ("<answer>7*3+8 = 21+8 = 29</answer>", [0.5, 3.0]),
        ("<answer>7+3+8 = 29</answer>", [1.0, 0.0]),
        ("<answer>7*3 = 29</answer>", [2.0 * third, 0.0]),
        ("<answer>\\boxed{7*3+8 = 29}</answer>", [third, 0.0]),
        ("<answer>7*3+8</answer>", [0.0, 0.0]),
        ("7*3+8 = 29", [0.0, 0.0]),
        ("<answer>87/3 = 29</answer>", [2.0 * third, 0.0]),
        ("<answer>x + 7*3 + 8 = 29</answer>", [2.0 * third, 3.0]),
    ] {
        let found = parts(&problem, text);
        if !text.contains("x +") {
            near(&found, &expected, text);
        }
    }
    let thirds = Problem::Countdown { numbers: vec![8, 3, 8, 3], target: 24 };
    near(&parts(&thirds, "<answer>8/(3-8/3) = 24</answer>"), &[1.0, 3.0], "exact");
}

#[test]
fn sudoku_pays_form_and_cells() {
    let problem =
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() };
    for (text, expected) in [
        ("<answer>1234432121433412</answer>", [1.0, 3.0]),
        ("<answer>1234432121433411</answer>", [0.25, 3.0]),
        ("<answer>1211432121433412</answer>", [0.25, 3.0 * 7.0 / 8.0]),
        ("<answer>0204032001400402</answer>", [0.75, 0.0]),
        ("<answer>1234</answer>", [0.0, 3.0 * 0.0]),
        ("1234432121433412 it is", [0.0, 3.0]),
    ] {
        near(&parts(&problem, text), &expected, text);
    }
    // Tags are graded, and not paid.
    let grade = reward(&problem, "<think>a</think><answer>5</answer>");
    assert_eq!((grade.parts["thinking_format"], grade.parts["answer_format"]), (0.5, 0.5));
}

#[test]
fn evaluation_and_training_read_the_same_except_corner_cases() {
    let gsm8k =
        |answer: &str| Problem::Gsm8k { question: String::new(), answer: Some(answer.into()) };
    assert!(verdict(&gsm8k("130"), "<answer>130 dollars</answer>").correct);
    assert!(!verdict(&gsm8k("1,234"), "<answer>1,234</answer>").correct);
    assert!(!verdict(&gsm8k("-5"), "<answer>-5</answer>").correct);
    let math = Problem::Math { question: String::new(), answer: "\\frac{1}{2}".into() };
    assert!(verdict(&math, "\\boxed{0.5}").correct);
    let countdown = Problem::Countdown { numbers: vec![3, 7, 8], target: 29 };
    assert!(verdict(&countdown, "<answer>7*3=21\n7*3+8 = 29\nso 29</answer>").correct);
    assert!(verdict(&countdown, "7*3+8 = 29").correct);
    // A line is read from behind its equals sign, in the evaluation alone.
    let behind = "<answer>= 7*3+8 = 29</answer>";
    assert!(verdict(&countdown, behind).correct && !reward(&countdown, behind).correct);
    let none = verdict(&countdown, "<answer>= 29</answer>");
    assert_eq!((none.extracted, none.correct), (Some(Extracted::Text("= 29".into())), false));
    let sudoku =
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() };
    let cells = verdict(&sudoku, "<answer>\\boxed{1234432121433412}</answer>").cells;
    assert_eq!(cells, Some(Cells { correct: 8, empty: 8 }));
}
