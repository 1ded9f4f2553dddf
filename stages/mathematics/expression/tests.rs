//! Tests of every grammar: the texts that it reads, and those that it refuses.

use super::*;

fn python(text: &str) -> Option<f64> {
    evaluate(text, Grammar::Python)?.to_f64()
}

#[test]
fn python_arithmetic() {
    for (text, expected) in [
        ("8/(3-8/3)", 24.0),
        ("2**3**2", 512.0),
        ("-2**2", -4.0),
        ("2**-1", 0.5),
        ("7//2", 3.0),
        ("-7//2", -4.0),
        ("--3 + +4", 7.0),
        ("2 * - 3", -6.0),
        (".5+5.", 5.5),
        ("00", 0.0),
        ("( 1 +\n 2 )\n", 3.0),
        ("05.5", 5.5),
    ] {
        let found = python(text).unwrap();
        assert!((found - expected).abs() < 1e-12, "{text}: {found}");
    }
}

#[test]
fn errors_are_no_values() {
    for text in [
        "",
        "1/0",
        "05",
        "2(3)",
        "(2)(3)",
        "(1",
        "1)",
        "1 2",
        "1+",
        "*1",
        "1\n+2",
        "()",
        ".",
        "0**-1",
        "(-8)**(1/3)",
        "9**9**9",
        "2=2",
        "1\u{a0}+2",
        "9.0**9999",
        "1..5",
    ] {
        assert_eq!(python(text), None, "{text:?}");
    }
    assert_eq!(python(&"(".repeat(100_000)), None);
    assert_eq!(python(&format!("{}1", "-".repeat(100_000))), None);
    assert_eq!(python(&format!("{}1", "-".repeat(2994))), None);
    assert_eq!(python(&format!("{}1", "-".repeat(2993))), Some(-1.0));
    assert_eq!(python(&format!("{}1", "2**".repeat(100_000))), None);
}

#[test]
fn exact_arithmetic_keeps_fractions() {
    let third = evaluate("1/3", Grammar::Exact).unwrap();
    assert_eq!(third, Value::Exact(BigRational::new(1.into(), 3.into())));
    assert_eq!(evaluate("1/3*3", Grammar::Exact).unwrap().to_f64(), Some(1.0));
    assert_eq!(evaluate("3/0+1", Grammar::Exact), Some(Value::Undefined));
    assert_eq!(evaluate("2(3)", Grammar::Exact), None);
}
/// Numerator and denominator.
fn plain(text: &str) -> Option<(i128, i128)> {
    match evaluate(text, Grammar::Countdown)? {
        Value::Exact(value) => Some((value.numer().to_i128()?, value.denom().to_i128()?)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn countdown_is_exact_and_follows_precedence() {
    for (text, expected) in [
        ("7", (7, 1)),
        ("0", (0, 1)),
        ("2+3*4", (14, 1)),
        ("(2+3)*4", (20, 1)),
        ("9-3-2", (4, 1)),
        ("8/4/2", (1, 1)),
        ("1-2", (-1, 1)),
        ("7/2", (7, 2)),
        ("8/(3-8/3)", (24, 1)),
        ("1/3+1/3+1/3", (1, 1)),
        (" ( 3 + 5 ) * 7 ", (56, 1)),
        ("((((1))))", (1, 1)),
        ("4294967295*4294967295", (18_446_744_065_119_617_025, 1)),
    ] {
        assert_eq!(plain(text), Some(expected), "{text}");
    }
}

#[test]
fn countdown_refuses_all_else() {
    #[rustfmt::skip]
    let refused = [
        "", " ", "+", "()", "3+", "+3", "-3", "2*-3", "2--3", "(-3)", "3 5", "05", "00", "3**2",
        "3//2", "2(3)", "(2)(3)", "(2)3", "(3", "3)", "((3)", "3.0", "3.", ".5", "3,5", "1e3",
        "1_0", "3+5=8", "x", "3\n", "3\t+5", "(3\n)", "\u{a0}3", "٣", "３", "3\u{0}", "1/0",
        "1/(2-2)", "4294967296", "99999999999999999999999999999999999999999",
    ];
    for text in refused {
        assert_eq!(plain(text), None, "{text:?}");
    }
}

#[test]
fn countdown_is_bounded() {
    let nested = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(plain(&nested(200)).is_some() && plain(&nested(201)).is_none());
    assert!(plain(&"(".repeat(1_000_000)).is_none());
    assert_eq!(plain(&format!("1{}", "+1".repeat(100_000))), Some((100_001, 1)));
    let smallest = format!("((0-1){})", "*2".repeat(127));
    assert_eq!(plain(&smallest), Some((i128::MIN, 1)));
    assert_eq!(plain(&format!("{smallest}/{smallest}")), Some((1, 1)));
    for operation in ["*(0-1)", "-1", "/(0-1)", "*2", "/3/5*7"] {
        assert!(plain(&format!("{smallest}{operation}")).is_none_or(|(_, below)| below > 0));
    }
}

/// Random texts of the grammar's own characters; most are wrong, none may panic.
#[test]
fn no_text_is_fatal() {
    const CHARACTERS: &[u8] = b"0123456789+-*/()()  =";
    let (mut accepted, mut state) = (0, 7_u64);
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % bound
    };
    for _ in 0..200_000 {
        let length = below(16);
        let text: String =
            (0..length).map(|_| char::from(CHARACTERS[below(CHARACTERS.len())])).collect();
        accepted += u32::from(plain(&text).is_some());
    }
    assert!(accepted > 1000, "only {accepted} texts were expressions");
}
