//! d1's training rewards, part by part, on completions written for the rule.

use crate::{Problem, Protocol};

use super::*;

fn parts(problem: &Problem, completion: &str) -> Vec<f64> {
    let grade = reward(problem, completion);
    let names = crate::reward_parts(problem.benchmark(), Protocol::D1);
    assert_eq!(grade.parts.len(), names.len());
    names.iter().map(|name| grade.parts[name]).collect()
}

fn near(found: &[f64], expected: &[f64]) {
    let close = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9);
    assert!(close, "{found:?} is not {expected:?}");
}

fn gsm8k(answer: &str) -> Problem {
    Problem::Gsm8k { question: String::new(), answer: Some(answer.into()) }
}

#[test]
fn gsm8k_pays_the_format_of_one_line() {
    let perfect = "<reasoning>\n6*3=18\n</reasoning>\n<answer>\n18\n</answer>\n";
    near(&parts(&gsm8k("18"), perfect), &[0.5, 0.0, 0.5, 0.5, 2.0]);
    // Without the last newline the second tag costs the whole text, and the last one earns a thousandth.
    let text = perfect.trim_end();
    let cost = 0.001 * f64::from(u32::try_from(text.len()).unwrap());
    near(&parts(&gsm8k("18"), text), &[0.501 - cost, 0.0, 0.0, 0.5, 2.0]);
    let soft = "<reasoning>a</reasoning> \n <answer>1,234</answer> and more";
    near(&parts(&gsm8k("1,234"), soft), &[0.0, 0.5, 0.0, 0.0, 2.0]);
    near(&parts(&gsm8k("1234"), soft), &[0.0, 0.5, 0.0, 0.0, 0.0]);
    // Reasoning of two lines earns neither format.
    let long = "<reasoning>\na\nb\n</reasoning>\n<answer>\n18\n</answer>\n";
    near(&parts(&gsm8k("18"), long), &[0.5, 0.0, 0.0, 0.5, 2.0]);
}

#[test]
fn gsm8k_reads_behind_the_last_opening_tag() {
    for (text, answer, digits) in [
        ("<answer>1</answer><answer> 18 </answer>", "18", 0.5),
        ("18", "18", 0.5),
        ("<answer>18", "18", 0.5),
        ("<answer>-18</answer>", "-18", 0.0),
        ("<answer></answer>", "", 0.0),
    ] {
        let grade = reward(&gsm8k("18"), text);
        assert_eq!(grade.extracted.as_deref(), Some(answer), "{text}");
        assert_eq!((grade.parts["int"], grade.correct), (digits, answer == "18"), "{text}");
    }
    let unanswerable = Problem::Gsm8k { question: String::new(), answer: None };
    assert!(!reward(&unanswerable, "").correct);
}

#[test]
fn characters_and_not_bytes_are_counted() {
    let long = "\n<answer>\n\u{e9}\u{e9}\n</answer>\n\u{e9}\u{e9}\u{e9}";
    near(&parts(&gsm8k("1"), long)[..1], &[0.125 - 0.003 + 0.125 - 0.003]);
}

#[test]
fn math_pays_half_a_point_for_the_tag_alone() {
    let problem = Problem::Math { question: String::new(), answer: "\\frac{1}{2}".into() };
    near(&parts(&problem, "<answer>\\boxed{\\frac12}</answer>"), &[2.0, 0.75]);
    near(&parts(&problem, "so \\boxed{0.5}"), &[2.0, 0.25]);
    near(&parts(&problem, "so \\boxed{\\frac{2}{4}}"), &[0.0, 0.25]);
    near(&parts(&problem, "1/2"), &[2.0, 0.25]);
    near(&parts(&problem, "1/2 or \\boxed{1/2"), &[0.0, 0.25]);
}

#[test]
fn countdown_pays_a_tenth_for_any_answer() {
    let problem = Problem::Countdown { numbers: vec![3, 7, 8], target: 29 };
    for (text, paid) in [
        ("7*3+8", 0.0),
        ("<answer></answer>", 0.1),
        ("<answer>7*3+8</answer>", 1.0),
        ("<answer>1</answer> no: <answer>\n8 + (7*3)\n</answer>", 1.0),
        ("<answer>7*3+8 = 29</answer>", 0.1),
        ("<answer>7*3+8+0*3</answer>", 0.1),
        ("<answer>7*3.8</answer>", 0.1),
        ("<answer>7*3+8</answer><answer>", 1.0),
        ("<answer>7\n*3+8</answer>", 0.1),
        ("<answer>(7\n*3+8)</answer>", 1.0),
        ("<answer>7x3+8</answer>", 0.1),
    ] {
        near(&parts(&problem, text), &[paid]);
    }
    let thirds = Problem::Countdown { numbers: vec![8, 3, 8, 3], target: 24 };
    near(&parts(&thirds, "<answer>8/(3-8/3)</answer>"), &[1.0]);
}

#[test]
fn sudoku_pays_the_share_of_blanks() {
    let problem =
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() };
    for (text, paid) in [
        ("<answer>1234432121433412</answer>", 1.0),
        ("<answer>1234 4321\n2143 3412</answer>", 1.0),
        ("<answer>1234 4321</answer>", 0.5),
        ("<answer>none</answer>", 0.0),
        ("1234432121433412", 0.0),
        ("<answer>12344321214334129999</answer>", 1.0),
    ] {
        near(&parts(&problem, text), &[paid]);
    }
}
