//! Arithmetic as a Python expression: `0-9 . + - * / ( )` and whitespace, nothing else.
//!
//! `/` divides truly, `//` floors, `**` raises to a power, signs may be stacked. Whole numbers are exact, all
//! else is a double; or, in [`Numbers::Exact`], everything is an exact fraction. `None` stands for every
//! error: a division by zero, a leading zero, a call such as `2(3)`, a newline outside parentheses, nesting
//! beyond `MAX_DEPTH`, a complex power, and results beyond `MAX_BITS`. The text may be hostile: it costs
//! bounded time and stack.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Parentheses or powers that may be open at once.
const MAX_DEPTH: u32 = 200;

/// Signs in front of a number: CPython 3.11 gives up beyond this.
const MAX_SIGNS: u32 = 2993;

/// Bits of a whole number; Python would go on, and on.
const MAX_BITS: u64 = 20_000;

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number, or in exact arithmetic any fraction.
    Exact(BigRational),
    /// A double.
    Float(f64),
    /// In exact arithmetic: a division by zero, or a result without bounds.
    Undefined,
}

impl Value {
    /// The nearest double.
    pub fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Exact(value) => value.to_f64().filter(|value| value.is_finite()),
            Self::Float(value) => Some(*value),
            Self::Undefined => None,
        }
    }
}

/// Which numbers an expression is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Python's: quotients are doubles.
    Python,
    /// Quotients of whole numbers are fractions; what has no value is [`Value::Undefined`].
    Exact,
}

/// Evaluates; `None` for all that the header calls an error.
pub fn evaluate(text: &str, numbers: Numbers) -> Option<Value> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, numbers };
    let value = parser.sum(0)?;
    parser.tokens.is_empty().then_some(value)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(Value),
    Operator(&'static str),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut rest = text
        .trim_start_matches([' ', '\t', '\n', '\r', '\x0c'])
        .trim_end_matches([' ', '\t', '\n', '\r', '\x0c']);
    let (mut found, mut open) = (Vec::new(), 0u32);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\t' | '\x0c' => 1,
            '\n' | '\r' if open > 0 => 1,
            '0'..='9' | '.' => {
                let (number, length) = number(rest)?;
                found.push(Token::Number(number));
                length
            }
            _ => {
                let operator = ["**", "//", "+", "-", "*", "/", "(", ")"]
                    .into_iter()
                    .find(|operator| rest.starts_with(operator))?;
                match operator {
                    "(" => open += 1,
                    ")" => open = open.checked_sub(1)?,
                    _ => {}
                }
                found.push(Token::Operator(operator));
                operator.len()
            }
        };
        rest = &rest[length..];
    }
    Some(found)
}

/// A number at the start of the text, and its length.
fn number(text: &str) -> Option<(Value, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    if !text[whole..].starts_with('.') {
        let run = &text[..whole];
        let leading_zero = run.starts_with('0') && run.bytes().any(|digit| digit != b'0');
        // Python refuses to read more digits than this.
        if leading_zero || whole > 4300 {
            return None;
        }
        return Some((Value::Exact(BigRational::from_integer(run.parse().ok()?)), whole));
    }
    let fraction = digits(&text[whole + 1..]);
    if whole + fraction == 0 {
        return None;
    }
    let length = whole + 1 + fraction;
    Some((Value::Float(text[..length].parse().ok()?), length))
}

struct Parser<'a> {
    tokens: &'a [Token],
    numbers: Numbers,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        let (Token::Operator(operator), rest) = self.tokens.split_first()? else { return None };
        wanted.contains(operator).then(|| {
            self.tokens = rest;
            *operator
        })
    }

    fn sum(&mut self, depth: u32) -> Option<Value> {
        let mut left = self.product(depth)?;
        while let Some(operator) = self.take(&["+", "-"]) {
            let right = self.product(depth)?;
            left = self.defined(self.apply(operator, left, right))?;
        }
        Some(left)
    }

    /// A result; in exact arithmetic, an undefined one is no error.
    fn defined(&self, value: Option<Value>) -> Option<Value> {
        value.or_else(|| (self.numbers == Numbers::Exact).then_some(Value::Undefined))
    }

    fn product(&mut self, depth: u32) -> Option<Value> {
        let mut left = self.signed(depth)?;
        while let Some(operator) = self.take(&["*", "/", "//"]) {
            let right = self.signed(depth)?;
            left = self.defined(self.apply(operator, left, right))?;
        }
        Some(left)
    }

    /// A sign binds less than the power to its right, and more than any operator to its left.
    fn signed(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (mut signs, mut negative) = (0, false);
        while let Some(sign) = self.take(&["+", "-"]) {
            signs += 1;
            negative ^= sign == "-";
            if signs > MAX_SIGNS {
                return None;
            }
        }
        let mut value = self.atom(depth)?;
        if self.take(&["**"]).is_some() {
            let exponent = self.signed(depth + 1)?;
            value = self.defined(self.power(value, exponent))?;
        }
        Some(match value {
            Value::Exact(value) if negative => Value::Exact(-value),
            Value::Float(value) if negative => Value::Float(-value),
            value => value,
        })
    }

    fn atom(&mut self, depth: u32) -> Option<Value> {
        if self.take(&["("]).is_some() {
            let inside = self.sum(depth + 1)?;
            self.take(&[")"])?;
            return Some(inside);
        }
        let (Token::Number(value), rest) = self.tokens.split_first()? else { return None };
        self.tokens = rest;
        Some(value.clone())
    }

    fn apply(&self, operator: &str, left: Value, right: Value) -> Option<Value> {
        if let (Value::Exact(left), Value::Exact(right)) = (&left, &right) {
            let divisible = !right.is_zero();
            return bounded(match operator {
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                "//" if divisible => (left / right).floor(),
                "/" if divisible && self.numbers == Numbers::Python => {
                    return (left / right)
                        .to_f64()
                        .filter(|quotient| quotient.is_finite())
                        .map(Value::Float);
                }
                "/" if divisible => left / right,
                _ => return None,
            });
        }
        let (left, right) = (left.to_f64()?, right.to_f64()?);
        Some(Value::Float(match operator {
            "+" => left + right,
            "-" => left - right,
            "*" => left * right,
            "/" if right != 0.0 => left / right,
            "//" if right != 0.0 => (left / right).floor(),
            _ => return None,
        }))
    }

    fn power(&self, base: Value, exponent: Value) -> Option<Value> {
        if let (Value::Exact(base), Value::Exact(exponent)) = (&base, &exponent)
            && exponent.is_integer()
            && (!exponent.is_negative() || self.numbers == Numbers::Exact)
        {
            return raise(base, &exponent.to_integer()).and_then(bounded);
        }
        let (base, exponent) = (base.to_f64()?, exponent.to_f64()?);
        let error = (base == 0.0 && exponent < 0.0) || (base < 0.0 && exponent.fract() != 0.0);
        // Python raises an error where a double overflows.
        (!error).then(|| base.powf(exponent)).filter(|power| power.is_finite()).map(Value::Float)
    }
}

/// A whole power, if its size is in bounds.
pub fn raise(base: &BigRational, exponent: &BigInt) -> Option<BigRational> {
    if exponent.is_zero() || base.is_one() {
        return Some(BigRational::one());
    }
    if base.is_zero() {
        return exponent.is_positive().then(BigRational::zero);
    }
    if (-base).is_one() {
        return Some(if (exponent % 2u8).is_zero() { BigRational::one() } else { base.clone() });
    }
    let size = base.numer().bits().max(base.denom().bits());
    let exponent = exponent.to_i32()?;
    let fits = size.saturating_mul(u64::from(exponent.unsigned_abs())) <= MAX_BITS;
    fits.then(|| base.pow(exponent))
}

fn bounded(value: BigRational) -> Option<Value> {
    (value.numer().bits().max(value.denom().bits()) <= MAX_BITS).then_some(Value::Exact(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(text: &str) -> Option<f64> {
        evaluate(text, Numbers::Python)?.to_f64()
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
        let third = evaluate("1/3", Numbers::Exact).unwrap();
        assert_eq!(third, Value::Exact(BigRational::new(1.into(), 3.into())));
        assert_eq!(evaluate("1/3*3", Numbers::Exact).unwrap().to_f64(), Some(1.0));
        assert_eq!(evaluate("3/0+1", Numbers::Exact), Some(Value::Undefined));
        assert_eq!(evaluate("2(3)", Numbers::Exact), None);
    }
}
