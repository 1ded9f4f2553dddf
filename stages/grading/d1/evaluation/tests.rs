//! d1's evaluation, rule by rule, on completions written for the rule.

use super::*;

fn read(problem: &Problem, completion: &str) -> (Option<Extracted>, bool) {
    let verdict = verdict(problem, completion);
    (verdict.extracted, verdict.correct)
}

#[test]
fn gsm8k_takes_the_first_box_with_a_number() {
    let problem = Problem::Gsm8k { question: String::new(), answer: Some("1,800".to_owned()) };
    for (text, number) in [
        ("\\boxed{...} \\boxed{} \\boxed{1800} \\boxed{7}", Some(1800.0)),
        ("\\boxed{\\text{about 5}}", Some(5.0)),
        ("\\boxed{1,800}", Some(1.0)),
        ("\\boxed{1800\n}", None),
        ("\\boxed{x} <answer>1800</answer>", Some(1800.0)),
        ("<answer>from 2 to 1800.</answer>", Some(1800.0)),
        ("<answer>1,800</answer>", Some(800.0)),
        ("<answer> </answer><answer>1800</answer>", None),
        ("1800", None),
        ("\\boxed{1_800}", Some(1800.0)),
        ("\\boxed{1.8e3}", Some(1800.0)),
    ] {
        let expected = (number.map(Extracted::Number), number == Some(1800.0));
        assert_eq!(read(&problem, text), expected, "{text}");
    }
}

#[test]
fn a_negative_gold_is_never_right() {
    for answer in [Some("-3".to_owned()), None] {
        let problem = Problem::Gsm8k { question: String::new(), answer };
        assert_eq!(read(&problem, "\\boxed{-3}"), (Some(Extracted::Number(-3.0)), false));
        assert_eq!(read(&problem, "nothing"), (None, false));
    }
    let dollars = Problem::Gsm8k { question: String::new(), answer: Some("$ 5".to_owned()) };
    assert!(!read(&dollars, "\\boxed{5}").1);
}

#[test]
fn math_consults_the_tag_only_where_a_box_breaks() {
    let problem = Problem::Math { question: String::new(), answer: "7".to_owned() };
    let text = |text: &str| Some(Extracted::Text(text.to_owned()));
    for (completion, extracted, correct) in [
        ("\\boxed{7} <answer>8</answer>", text("7"), true),
        ("<answer>7</answer>", text("<answer>7</answer>"), false),
        ("\\boxed{8 <answer>7</answer>", text("7"), true),
        ("\\boxed{} <answer> 7 </answer>", text("7"), true),
        ("\\boxed{7", None, false),
    ] {
        assert_eq!(read(&problem, completion), (extracted, correct), "{completion}");
    }
}

#[test]
fn countdown_cuts_at_the_first_equals_sign() {
    let problem = Problem::Countdown { numbers: vec![3, 7, 8], target: 29 };
    for (completion, extracted, correct) in [
        ("\\boxed{7 \\times 3 + 8}", "7 * 3 + 8", true),
        ("\\boxed{7*3+8=29}", "7*3+8", true),
        ("\\boxed{58 \\div 2}", "58 / 2", false),
        ("first 7*3=21, then 7*3+8=29", "7*3", false),
        ("try: 8 + 7 * 3 = 29", "8 + 7 * 3", true),
        ("\\boxed{7*3+8 <answer>8+7*3</answer>", "8+7*3", true),
        ("\\boxed{7*3+8=x}", "7*3+8=x", false),
    ] {
        let expected = (Some(Extracted::Text(extracted.to_owned())), correct);
        assert_eq!(read(&problem, completion), expected, "{completion}");
    }
}

#[test]
fn sudoku_finds_a_grid_by_five_rules() {
    let problem = Problem::Sudoku {
        puzzle: "0204032001400402".to_owned(),
        solution: "1234432121433412".to_owned(),
    };
    for (completion, extracted, correct) in [
        ("<answer>\n```\n1234\n4321\n2143\n3412\n```</answer>", "1234432121433412", 8),
        ("<answer>12 34</answer>", "1234000000000000", 2),
        ("<answer>1234<|eot_id|>9", "1234000000000000", 2),
        ("x</answer> 12344321<|endoftext|>", "1234432100000000", 4),
        ("x</answer>\n1234", "1234000000000000", 2),
        ("99991234432121433412 </answer>", "1234432121433412", 8),
        ("so 1234432121433412 it is", "1234432121433412", 8),
        ("so 91234432121433412 it is", "", 0),
        ("<answer>1-234432121433412</answer>", "1-23443212143341", 3),
        ("nothing", "", 0),
    ] {
        let verdict = verdict(&problem, completion);
        let cells = Some(crate::Cells { correct, empty: 8 });
        assert_eq!(verdict.extracted, Some(Extracted::Text(extracted.to_owned())), "{completion}");
        assert_eq!(verdict.cells, cells, "{completion}");
        assert_eq!(verdict.correct, correct == 8, "{completion}");
    }
}
