//! Compares with math_verify 0.8.0 (sympy 1.14.0, latex2sympy2_extended 1.10.2): pairs of answers, and answers
//! that are always the same.
//!
//! The tests check what differs and in which direction: if this project pays and math_verify does not, a policy could
//! earn what it should not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::lines;
use crate::{Benchmark, Protocol, problem_of_truth, reward};
use agrpo_mathematics::{parse_latex, same};

#[test]
fn two_pairs_in_a_thousand_differ_at_most() {
    let Some(rows) = lines("fixtures/math_pairs/pairs.jsonl", 2727) else { return };
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut differing = Vec::new();
    for row in &rows {
        let (gold, found) = (text(row, "ground_truth"), text(row, "completion"));
        let paid = same(&parse_latex(&gold), &parse_latex(&found));
        if row["correct"] != paid {
            differing.push(format!("{paid}: {} | {gold} | {found}", text(row, "kind")));
        }
    }
    assert!(differing.len() * 500 <= rows.len(), "{differing:#?}");
    let paid = differing.iter().filter(|line| line.starts_with("true")).count();
    assert!(paid * 1000 <= rows.len(), "paid where math_verify does not pay: {differing:#?}");
}

/// Answers that never change, and for how many golds of MATH's training set math_verify pays each.
const CONSTANTS: &[(&str, usize)] = &[
    ("0", 102),
    ("1", 191),
    ("-1", 50),
    ("2", 206),
    ("3", 187),
    ("4", 163),
    ("5", 174),
    ("6", 184),
    ("8", 131),
    ("10", 107),
    ("12", 104),
    ("16", 75),
    ("20", 60),
    ("24", 49),
    ("30", 44),
    ("100", 27),
    ("-2", 38),
    ("\\frac{1}{2}", 65),
    ("\\frac12", 65),
    ("0.5", 65),
    ("1/3", 33),
    ("\\pi", 3),
    ("e", 6),
    ("i", 0),
    ("\\infty", 0),
    ("-\\infty", 0),
    ("\\mathbb{R}", 4),
    ("\\emptyset", 0),
    ("\\{\\}", 0),
    ("{}", 0),
    ("(-\\infty,\\infty)", 4),
    ("(0,\\infty)", 3),
    ("[0,\\infty)", 0),
    ("(0,1)", 3),
    ("[0,1]", 0),
    ("(0,0)", 1),
    ("\\{0\\}", 102),
    ("x", 0),
    ("n", 3),
    ("x=1", 190),
    ("x>0", 0),
    ("True", 0),
    ("\\text{yes}", 0),
    ("\\text{no}", 0),
    ("\\text{(A)}", 9),
    ("A", 9),
    ("", 0),
    ("\\boxed{}", 0),
    ("\\sqrt{2}", 11),
    ("\\pm1", 2),
    ("\\begin{pmatrix}0\\\\0\\end{pmatrix}", 0),
    ("0=0", 102),
    ("x\\in\\mathbb{R}", 4),
    ("1,2", 7),
    ("(1,2)", 7),
    ("\\text{None}", 0),
    ("nan", 0),
    ("NaN", 0),
    ("\\frac00", 0),
    ("50\\%", 65),
    ("I", 0),
    ("I^2", 0),
    ("I^4", 0),
    ("I^{4}+1", 0),
    ("-I^2", 0),
    ("3I^4", 0),
    ("I\\cdot I", 50),
    ("\\ln e^{2}", 206),
];

#[test]
fn no_constant_is_paid_more_often_than_by_math_verify() {
    let Some(rows) = lines("data/math_train.jsonl", 7474) else { return };
    let mut golds: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        if let Some(answer) = row["answer"].as_str() {
            *golds.entry(answer.to_owned()).or_default() += 1;
        }
    }
    let constants: Vec<_> = CONSTANTS.iter().map(|(text, _)| parse_latex(text)).collect();
    let mut paid = vec![0; CONSTANTS.len()];
    for (gold, count) in &golds {
        let gold = parse_latex(gold);
        for (constant, paid) in constants.iter().zip(&mut paid) {
            *paid += if same(&gold, constant) { *count } else { 0 };
        }
    }
    for ((text, most), paid) in CONSTANTS.iter().zip(paid) {
        assert!(paid <= *most, "{text} is paid {paid} times, by math_verify {most} times");
        // Fewer would be a fault as well, of the other kind.
        assert_eq!(paid, *most, "{text} is paid {paid} times of {most}");
    }
}

#[test]
fn truths_of_the_training_set_are_paid_to_themselves() {
    let Some(rows) = lines("data/math_train.jsonl", 7474) else { return };
    for row in rows.iter().take(2000) {
        let Some(answer) = row["answer"].as_str().filter(|answer| !answer.trim().is_empty()) else {
            continue;
        };
        let problem = problem_of_truth(Benchmark::Math, "", &row["answer"]).unwrap();
        let grade = reward(&problem, Protocol::Agrpo, &format!("<answer>{answer}</answer>"));
        assert!(grade.correct, "{answer}");
    }
}
