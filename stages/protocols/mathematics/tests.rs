//! Pairs of answers that are equal, and pairs that are not, by what makes them so.

use super::*;

fn equal(gold: &str, found: &str) -> bool {
    same(&parse_latex(gold), &parse_latex(found))
}

fn all(expected: bool, pairs: &[(&str, &str)]) {
    for (gold, found) in pairs {
        assert_eq!(equal(gold, found), expected, "{gold} | {found}");
    }
}

#[test]
fn numbers_are_exact_or_rounded_to_six_places() {
    all(
        true,
        &[
            ("\\frac{639}{40}", "15.975"),
            ("\\frac{1}{8}", "\\frac{3}{24}"),
            ("\\frac{4}{9}", "8/18"),
            ("\\$36", "36.00"),
            ("58,500", "58500"),
            ("10,\\!080", "7! \\times 2!"),
            ("0.333333", "1/3"),
            ("1\\frac{4}{5}", "1.8"),
            (".5", "\\frac12"),
            ("2^{10}", "1024"),
            ("0,500", "0.5"),
        ],
    );
    all(
        false,
        &[
            ("\\frac{1}{3}", "0.3333"),
            ("5", "6"),
            ("1234", "12,34"),
            ("5", "\\frac{5}{0}"),
            ("\\frac{5}{0}", "\\frac{1}{0}"),
            ("2^{3}", "2^{9^{9^{9}}}"),
        ],
    );
}

#[test]
fn percent_is_a_hundredth() {
    all(true, &[("10\\%", "0.1"), ("50\\%", "\\frac{1}{2}"), ("25 percent", "25\\%")]);
    all(false, &[("10", "10\\%"), ("10\\%", "10")]);
}

#[test]
fn roots_and_symbols_are_compared_by_value() {
    all(
        true,
        &[
            ("\\frac{\\sqrt{3}}{3}", "\\sqrt{3}/3"),
            ("\\frac{1}{\\sqrt3}", "\\sqrt{\\frac13}"),
            ("(a+5)(b+2)", "ab + 2a + 5b + 10"),
            ("-2 + 7i", "7i - 2"),
            ("18+2\\pi", "2\\pi + 18"),
            ("\\tan x", "\\frac{\\sin x}{\\cos x}"),
            ("\\log_2 8", "3"),
            ("\\binom{5}{2}", "10"),
            ("|x-3|", "|3-x|"),
            ("\\lfloor 3.7 \\rfloor", "3"),
            ("p - q", "-q + p"),
        ],
    );
    all(
        false,
        &[
            ("x^2", "2x"),
            ("\\sqrt{x^2}", "x"),
            ("f(x)", "f(y)"),
            ("3R^2", "3a^2"),
            ("\\pi", "3.14"),
        ],
    );
}

#[test]
fn units_and_bases_are_dropped() {
    all(
        true,
        &[
            ("12", "12 cm"),
            ("15\\mbox{ cm}^2", "15"),
            ("90^\\circ", "90"),
            ("4210_{5}", "4210_5"),
            ("2516_8", "2516"),
            ("31", "8 + 8 + 15 = 31 units"),
        ],
    );
    all(false, &[("130", "130 dollars"), ("800", "800 ml"), ("5", "5 books"), ("2", "2:00 pm")]);
}

#[test]
fn words_are_spelled() {
    all(
        true,
        &[
            ("\\text{(C)}", "C"),
            ("\\text{east}", "east"),
            ("\\text{Evelyn}", "Evelyn"),
            ("18", "\\text{18}"),
            ("e", "E"),
        ],
    );
    all(false, &[("\\text{(C)}", "B"), ("\\text{east}", "west"), ("\\text{odd}", "even")]);
}

#[test]
fn sets_have_no_order_and_tuples_do() {
    all(
        true,
        &[
            ("3, 5, 7", "3, 7, 5"),
            ("\\{1, 2\\}", "2, 1"),
            ("(1,2)", "1,2"),
            ("(1,2,3)", "1, 2, 3"),
            ("1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"),
            ("3", "\\{3\\}"),
            ("3,5", "3 and 5"),
            ("(3, \\frac{\\pi}{2})", "\\left(3,\\frac{\\pi}{2}\\right)"),
        ],
    );
    all(false, &[("(1,2)", "(2,1)"), ("(1,2,3)", "(3,2,1)"), ("1,2", "1,2,3"), ("-2,1", "1")]);
}

#[test]
fn intervals_keep_their_ends() {
    all(
        true,
        &[
            ("[-2,7]", "\\left[-2, 7\\right]"),
            ("x \\in [-2,7]", "[-2, 7]"),
            ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)"),
            ("(0,\\infty)", "(0,\\infty]"),
            ("1 < x \\le 3", "(1,3]"),
            ("\\mathbb{R}\\setminus\\{2\\}", "(-\\infty,2)\\cup(2,\\infty)"),
        ],
    );
    all(
        false,
        &[
            ("(1,2]", "[1,2]"),
            ("(1,3]", "1 < x \\le 3"),
            ("(2,\\infty)", "(0,\\infty)"),
            ("(2,4)", "\\{(2,4)\\}"),
        ],
    );
}

#[test]
fn equations_may_be_answered_by_their_right_side() {
    all(
        true,
        &[
            ("x=5", "5"),
            ("2", "x = 2"),
            ("y = 2x + 3", "2x+3"),
            ("5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0"),
            ("x < 3", "3 > x"),
            ("x=3, y=5", "y=5, x=3"),
        ],
    );
    all(false, &[("x=5", "y=5"), ("y = 2x+3", "y = 2x"), ("x < 3", "x \\le 3")]);
}

#[test]
fn matrices_cell_by_cell() {
    let gold = "\\begin{pmatrix} 1/5 \\\\ -18/5 \\end{pmatrix}";
    all(
        true,
        &[
            (gold, "\\begin{bmatrix} 0.2 \\\\ -3.6 \\end{bmatrix}"),
            (gold, "\\frac15 \\begin{pmatrix} 1 \\\\ -18 \\end{pmatrix}"),
        ],
    );
    all(
        false,
        &[
            (gold, "\\begin{pmatrix} 1/5 & -18/5 \\end{pmatrix}"),
            (gold, "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
            (gold, "0"),
        ],
    );
}

#[test]
fn answers_are_found_in_prose() {
    let reads = |text: &str, gold: &str| same(&parse_latex(gold), &parse(text));
    for (text, gold) in [
        ("We get 3, so the answer is $7$.", "7"),
        ("the result is \\(\\frac{1}{2}\\) and nothing else", "0.5"),
        ("\\[ x = 4 \\]", "4"),
        ("It costs $1,250 in all.", "1250"),
        ("which is 3 + 4*2", "11"),
        ("so \\boxed{3} and \\boxed{5}", "3,5"),
        ("in total 40 percent", "0.4"),
        ("The answer is 12. There were 5 of them", "12"),
    ] {
        assert!(reads(text, gold), "{text}: {:?}", parse(text));
    }
    assert!(parse("no number").value.is_none() && parse("no number").text.is_none());
}

#[test]
fn a_text_that_cannot_be_read_is_equal_to_itself() {
    all(true, &[("\\sum_{i=1}^n i", "\\sum_{i=1}^n i")]);
    all(false, &[("\\sum_{i=1}^n i", "\\sum_{i=1}^m i"), ("", "")]);
}

#[test]
fn hostile_texts_cost_little() {
    for text in [
        "(".repeat(50_000),
        "{".repeat(50_000),
        "\\frac".repeat(20_000),
        "-".repeat(50_000),
        "1,".repeat(20_000),
        "((((((((((x))))))))))(".repeat(50),
        "answer ".repeat(3_000),
        "$".repeat(2_000),
    ] {
        assert!(!equal("5", &text), "{}", &text[..20]);
    }
}
