//! Arithmetic over whole numbers, `+ - * /` and parentheses, evaluated exactly.
//!
//! Values are reduced fractions of two `i128`, so `8/(3-8/3)` is 24 and nothing is rounded. Refused:
//! signs in front of a number or a parenthesis, powers, floor division, decimal points, leading
//! zeros, adjacent factors such as `2(3)`, any space but U+0020 (which may stand between tokens),
//! a division by zero, nesting beyond [`MAX_DEPTH`], and what does not fit the fraction.
//! The text may be hostile: it costs linear time and a bounded stack.

use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, CheckedSub};

/// Parentheses that may be open at once; Python stops at the same number.
const MAX_DEPTH: u32 = 200;

/// An exact value.
pub(super) type Value = Ratio<i128>;

/// The value as a whole number that is not negative.
pub(super) fn whole(value: Value) -> Option<u32> {
    value.is_integer().then(|| u32::try_from(*value.numer()).ok()).flatten()
}

/// The four operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Plus,
    Minus,
    Times,
    Divide,
}

impl Operator {
    pub(super) const ALL: [Self; 4] = [Self::Plus, Self::Minus, Self::Times, Self::Divide];

    pub(super) fn symbol(self) -> char {
        match self {
            Self::Plus => '+',
            Self::Minus => '-',
            Self::Times => '*',
            Self::Divide => '/',
        }
    }

    /// How strongly it binds: 0 or 1. An operand without operators has [`Operator::TIGHTEST`].
    pub(super) fn precedence(self) -> u8 {
        match self {
            Self::Plus | Self::Minus => 0,
            Self::Times | Self::Divide => 1,
        }
    }

    /// Binds more strongly than every operator.
    pub(super) const TIGHTEST: u8 = 2;

    /// `None` for a division by zero and for what does not fit.
    pub(super) fn apply(self, left: Value, right: Value) -> Option<Value> {
        match self {
            Self::Plus => left.checked_add(&right),
            Self::Minus => left.checked_sub(&right),
            Self::Times => left.checked_mul(&right),
            Self::Divide => left.checked_div(&right),
        }
    }
}

/// The value of an expression, and its numbers.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) value: Value,
    /// Every number, in the order of the text.
    pub(super) numbers: Vec<u32>,
}

/// Reads and evaluates; `None` for all that the header says is refused.
pub(super) fn evaluate(text: &str) -> Option<Evaluated> {
    let mut parser = Parser { rest: text.as_bytes(), numbers: Vec::new() };
    let value = parser.chain(0, 0)?;
    parser.peek().is_none().then_some(Evaluated { value, numbers: parser.numbers })
}

struct Parser<'a> {
    rest: &'a [u8],
    numbers: Vec<u32>,
}

impl Parser<'_> {
    /// The next byte that is not a space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn skip(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.rest = &self.rest[1..])
    }

    /// Operands joined from the left by operators of one precedence.
    fn chain(&mut self, precedence: u8, depth: u32) -> Option<Value> {
        if precedence == Operator::TIGHTEST {
            return self.operand(depth);
        }
        let mut value = self.chain(precedence + 1, depth)?;
        while let Some(operator) = self.operator(precedence) {
            value = operator.apply(value, self.chain(precedence + 1, depth)?)?;
        }
        Some(value)
    }

    fn operator(&mut self, precedence: u8) -> Option<Operator> {
        let symbol = char::from(self.peek()?);
        let operator = Operator::ALL
            .into_iter()
            .find(|operator| operator.symbol() == symbol && operator.precedence() == precedence)?;
        self.rest = &self.rest[1..];
        Some(operator)
    }

    fn operand(&mut self, depth: u32) -> Option<Value> {
        if self.peek()?.is_ascii_digit() {
            return self.number();
        }
        if depth == MAX_DEPTH {
            return None;
        }
        self.skip(b'(')?;
        let value = self.chain(0, depth + 1)?;
        self.skip(b')')?;
        Some(value)
    }

    fn number(&mut self) -> Option<Value> {
        let length = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(length);
        if digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let number = str::from_utf8(digits).ok()?.parse().ok()?;
        self.rest = rest;
        self.numbers.push(number);
        Some(Value::from_integer(i128::from(number)))
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Purpose, Seed};

    use super::*;

    fn value(text: &str) -> Option<(i128, i128)> {
        evaluate(text).map(|evaluated| (*evaluated.value.numer(), *evaluated.value.denom()))
    }

    #[test]
    fn values_are_exact_and_follow_precedence() {
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
            assert_eq!(value(text), Some(expected), "{text}");
        }
        assert_eq!(evaluate("(13+5)*7").unwrap().numbers, [13, 5, 7]);
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            " ",
            "+",
            "()",
            "3+",
            "+3",
            "-3",
            "2*-3",
            "2--3",
            "(-3)",
            "3 5",
            "05",
            "00",
            "3**2",
            "3//2",
            "2(3)",
            "(2)(3)",
            "(2)3",
            "(3",
            "3)",
            "((3)",
            "3.0",
            "3,5",
            "1e3",
            "1_0",
            "3+5=8",
            "x",
            "3\n",
            "3\t+5",
            "\u{a0}3",
            "٣",
            "３",
            "3\u{0}",
            "1/0",
            "1/(2-2)",
            "4294967296",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(evaluate(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let nested = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(evaluate(&nested(200)).is_some());
        assert!(evaluate(&nested(201)).is_none());
        assert!(evaluate(&"(".repeat(1_000_000)).is_none());
        assert_eq!(value(&format!("1{}", "+1".repeat(100_000))), Some((100_001, 1)));
        // The smallest i128 has no counterpart of opposite sign: it may not upset a division.
        let smallest = format!("((0-1){})", "*2".repeat(127));
        assert_eq!(value(&smallest), Some((i128::MIN, 1)));
        assert_eq!(value(&format!("{smallest}/{smallest}")), Some((1, 1)));
        for operation in ["*(0-1)", "-1", "/(0-1)", "*2", "/3/5*7"] {
            assert!(value(&format!("{smallest}{operation}")).is_none_or(|(_, below)| below > 0));
        }
    }

    /// Random texts of the grammar's own characters; most are wrong, none may panic.
    #[test]
    fn no_text_is_fatal() {
        const CHARACTERS: &[u8] = b"0123456789+-*/()()  =";
        let mut accepted = 0;
        for round in 0..200_000 {
            let seed = Seed::new(7).child(Purpose::Token, round);
            let length = u32::try_from(seed.below(16, 0, 0)).unwrap();
            let pick =
                |i| CHARACTERS[usize::try_from(seed.below(CHARACTERS.len() as u64, 1, i)).unwrap()];
            let text: String = (0..length).map(|i| char::from(pick(i))).collect();
            accepted += u32::from(evaluate(&text).is_some());
        }
        assert!(accepted > 1000, "only {accepted} texts were expressions");
    }
}
