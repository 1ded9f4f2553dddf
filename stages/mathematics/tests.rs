//! Pairs of answers that are equal, and pairs that are not, by what makes them so.

use super::*;

mod corners;

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
    assert!(parse("no number").value.is_none() && parse("no number").text().is_none());
}

#[test]
fn an_infinite_end_is_near_itself_alone() {
    all(
        false,
        &[
            ("(3,4)", "\\mathbb{R}"),
            ("x<2", "(2,\\infty)"),
            ("[5,10]", "\\infty"),
            ("(-\\infty,2)\\cup(2,4)", "(-\\infty,2)\\cup(2,\\infty)"),
            ("(-\\infty,3)", "(3,\\infty)"),
            ("\\infty", "-\\infty"),
            ("\\mathbb{R}", "(-\\infty,2)"),
            ("-\\infty<x<\\infty", "\\mathbb{R}"),
            ("x<\\infty", "(-\\infty,\\infty)"),
            ("x\\le\\infty", "[-\\infty,\\infty]"),
            ("x>-\\infty", "x\\in\\mathbb{R}"),
            ("\\pm\\infty", "(-\\infty,\\infty)"),
            ("\\pm\\infty", "\\mathbb{R}"),
            ("\\pm\\infty", "(\\infty,-\\infty)"),
        ],
    );
    all(
        true,
        &[
            ("\\mathbb{R}", "(-\\infty,\\infty)"),
            ("x<2", "(-\\infty,2)"),
            ("-\\infty<x<3", "(-\\infty,3)"),
            ("0<x<\\infty", "(0,\\infty)"),
            ("0,\\infty", "(0,\\infty)"),
            ("\\pm\\infty", "\\infty,-\\infty"),
        ],
    );
}

#[test]
fn inequalities_are_answered_by_the_set_where_they_hold() {
    all(
        true,
        &[
            ("2x>6", "(3,\\infty)"),
            ("|x|<3", "(-3,3)"),
            ("x^2\\ge 4", "(-\\infty,-2]\\cup[2,\\infty)"),
            ("x\\ne3", "(-\\infty,3)\\cup(3,\\infty)"),
            ("x^2=4", "\\{-2,2\\}"),
            ("x<y", "\\{y>x\\}"),
        ],
    );
    all(
        false,
        &[
            ("|x|<3", "(0,3)"),
            ("x\\ne3", "\\mathbb{R}"),
            ("(x-3)^2>0", "\\mathbb{R}"),
            ("-80\\leq g(x)\\leq 82", "\\mathbb{R}"),
            ("x<3", "\\{x<3\\}"),
            ("2x=10", "x=5"),
        ],
    );
}

#[test]
fn decimals_are_doubles_and_whole_numbers_are_not() {
    all(
        true,
        &[
            ("5", "5.0"),
            ("5300", "5.3\\times10^3"),
            ("\\frac{1}{3}", "0.333333"),
            ("\\sqrt2", "1.414214"),
            ("0.5x", "\\frac x2"),
        ],
    );
    all(
        false,
        &[
            ("5", "5.0000001"),
            ("0", "0.0000001"),
            ("602000000000000000000000", "6.02\\times10^{23}"),
            ("1", "1.00000000000000001"),
            ("\\sqrt{12}", "2\\cdot3^{0.5}"),
            ("2^{2008}-2", "2^{4181}"),
            ("\\frac{1}{2^{98}}", "0"),
            ("z=11^{46.875}", "y=11^{46.875}"),
        ],
    );
}

#[test]
fn analysis_is_evaluated() {
    all(
        true,
        &[
            ("5050", "\\sum_{k=1}^{100} k"),
            ("\\frac{n(n+1)}{2}", "\\sum_{k=1}^n k"),
            ("\\frac{\\pi^2}{6}", "\\sum_{n=1}^\\infty \\frac{1}{n^2}"),
            ("e", "\\lim_{n\\to\\infty}(1+\\frac1n)^n"),
            ("1", "\\lim_{x\\to0}\\frac{\\sin x}{x}"),
            ("\\frac12", "\\int_0^1 x\\,dx"),
            ("1", "\\int_0^\\infty e^{-x}dx"),
            ("\\frac{x^2}{2}", "\\int x dx"),
            ("2x", "\\frac{d}{dx}x^2"),
            ("5!", "\\prod_{k=1}^5 k"),
            ("-2", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"),
            ("\\binom{n}{2}", "\\frac{n(n-1)}{2}"),
            ("n!", "n(n-1)!"),
            ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{array}{c}1\\\\2\\end{array}^T"),
        ],
    );
    all(
        false,
        &[
            ("5050", "\\sum_{k=1}^{99} k"),
            ("\\infty", "\\sum_{k=1}^\\infty k"),
            ("2x", "\\frac{d}{dx}x^3"),
            ("\\frac{dy}{dx}=2x", "2x"),
            ("0", "\\lim_{x\\to0}\\frac1x"),
            ("\\binom{n}{2}", "\\binom{n}{3}"),
        ],
    );
}

#[test]
fn a_text_that_cannot_be_read_is_equal_to_itself() {
    all(true, &[("\\sum_{i=1}^n i", "\\sum_{i=1}^n i")]);
    all(false, &[("\\sum_{i=1}^n i", "\\sum_{i=1}^m i"), ("", "")]);
}

/// Every shape has a bound on length, nesting, digits, elements or steps: none takes long, and none takes more than
/// half of a thread's stack.
#[test]
fn hostile_texts_cost_little() {
    let repeated = |piece: &str, times: usize, end: &str| piece.repeat(times) + end;
    let mut texts = vec![
        repeated("\\frac{1}{", 300, "") + &repeated("2}", 300, ""),
        repeated("\\frac{d}{dx}", 40, "\\sin(x^2)"),
        repeated("\\sum_{k=1}^{9999}", 8, "k"),
        repeated("\\int_0^1", 8, "x dx"),
        repeated("\\lim_{x\\to0}", 8, "x"),
        repeated("\\begin{vmatrix}", 200, "1"),
        repeated("x+", 2000, "1"),
        repeated("(1,2)\\cup", 400, "(1,2)"),
        (0..800).map(|n| format!("x+{n},")).collect::<String>() + "1",
        format!("\\{{{}1\\}}", "\\sqrt{2},".repeat(400)),
        "9^{9^{9^9}}".to_owned(),
        "((((9!)!)!)!)!".to_owned(),
        "2^{99999999999}".to_owned(),
        "(1+x)^{999999999}".to_owned(),
        "\\binom{999999999}{500000000}".to_owned(),
        "1E999999999".to_owned(),
        "1E-999999999".to_owned(),
        "((((((((((x))))))))))(".repeat(50),
        "answer ".repeat(3_000),
        "$".repeat(2_000),
        "\\frac".repeat(20_000),
    ];
    for piece in [
        "(", "{", "[", "-", "--", "+", "!", "^2", "1,", "x", "9", "9.", "x=", "x<", "\\{", "|",
        "f(",
    ] {
        for length in [1_000, 4_000, 100_000] {
            texts.push(piece.repeat(length / piece.len()));
            texts.push(piece.repeat(length / piece.len()) + "5");
            texts.push("5".to_owned() + &piece.repeat(length / piece.len()));
        }
    }
    let checked = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        for text in texts {
            let shown = &text[..text.len().min(20)];
            let signs = text.starts_with(['-', '+']) && text.ends_with('5');
            assert!(signs || text.len() < 5 || !equal("7", &text), "{shown}");
        }
    });
    checked.unwrap().join().unwrap();
}
