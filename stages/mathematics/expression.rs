//! Evaluates arithmetic in digits, `+ - * / ( )` and what else a [`Grammar`] allows.
//!
//! `None` stands for every error: a call such as `2(3)`, a digit of another script, nesting beyond
//! `MAX_DEPTH`. The text may be hostile: it costs bounded time and stack.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Parentheses or powers that may be open at once; Python stops at the same number.
const MAX_DEPTH: u32 = 200;

/// Signs in front of a number: CPython 3.11 gives up beyond this.
const MAX_SIGNS: u32 = 2993;

/// Digits of a whole number: Python refuses to read more.
const MAX_DIGITS: usize = 4300;

/// The most bits of a whole number; Python has no limit.
const MAX_BITS: u64 = 20_000;

/// Every operator, the longest first.
const OPERATORS: [&str; 8] = ["**", "//", "+", "-", "*", "/", "(", ")"];

/// The syntax of expressions, and the kind of their numbers.
///
/// | | `Countdown` | `Python` | `Exact` |
/// |---|---|---|---|
/// | reads | answers to `[task.countdown]` | answers to d1's Countdown | plain answers of AGRPO |
/// | a quotient is | a fraction | a double | a fraction |
/// | powers `**`, floors `//`, decimal points | no | yes | yes |
/// | signs in front of a number | no | up to 2,993 | up to 2,993 |
/// | spaces | U+0020 | also tab and form feed, in parentheses line breaks | as `Python` |
/// | leading zeros | no | of zero, as in `00` | of zero |
/// | a number has at most | 32 bits | 4,300 digits | 4,300 digits |
/// | a result has at most | an `i128` above and below | 20,000 bits | 20,000 bits |
/// | beyond, and divided by zero | an error | an error | [`Value::Undefined`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// Four operations on whole numbers.
    Countdown,
    /// An expression of Python.
    Python,
    /// Python's, over fractions.
    Exact,
}

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number, or where quotients are fractions any fraction.
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

    /// The value where it is exactly a whole number from 0 on.
    pub fn to_u32(&self) -> Option<u32> {
        match self {
            Self::Exact(value) if value.is_integer() => value.numer().to_u32(),
            _ => None,
        }
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Exact(BigRational::from_integer(number.into()))
    }
}

/// Reads and evaluates; `None` where the grammar does not allow the text or its value.
pub fn evaluate(text: &str, grammar: Grammar) -> Option<Value> {
    let ends: &[char] = match grammar {
        Grammar::Countdown => &[' '],
        Grammar::Python | Grammar::Exact => &[' ', '\t', '\n', '\r', '\x0c'],
    };
    let mut parser = Parser { rest: text.trim_matches(ends), open: 0, grammar };
    let value = parser.sum(0)?;
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    /// Open parentheses.
    open: u32,
    grammar: Grammar,
}

impl Parser<'_> {
    fn is_plain(&self) -> bool {
        self.grammar == Grammar::Countdown
    }

    fn skip_spaces(&mut self) {
        let (is_plain, is_open) = (self.is_plain(), self.open > 0);
        self.rest = self.rest.trim_start_matches(|c| match c {
            ' ' => true,
            '\t' | '\x0c' => !is_plain,
            '\n' | '\r' => !is_plain && is_open,
            _ => false,
        });
    }

    /// The next operator, if it is one of these.
    fn take(&mut self, wanted: &[&str]) -> Option<&'static str> {
        self.skip_spaces();
        let known = if self.is_plain() { &OPERATORS[2..] } else { &OPERATORS[..] };
        let operator = *known.iter().find(|operator| self.rest.starts_with(**operator))?;
        wanted.contains(&operator).then(|| {
            self.rest = &self.rest[operator.len()..];
            operator
        })
    }

    fn sum(&mut self, depth: u32) -> Option<Value> {
        let product =
            |parser: &mut Self| parser.joined(&["*", "/", "//"], |parser| parser.signed(depth));
        self.joined(&["+", "-"], product)
    }

    /// Operands joined from the left by some of the operators.
    fn joined(
        &mut self,
        operators: &[&str],
        operand: impl Fn(&mut Self) -> Option<Value>,
    ) -> Option<Value> {
        let mut left = operand(self)?;
        while let Some(operator) = self.take(operators) {
            let right = operand(self)?;
            left = self.defined(self.grammar.apply(operator, left, right))?;
        }
        Some(left)
    }

    /// A result; in exact arithmetic, an undefined one is no error.
    fn defined(&self, value: Option<Value>) -> Option<Value> {
        value.or_else(|| (self.grammar == Grammar::Exact).then_some(Value::Undefined))
    }

    /// A sign binds less than the power to its right, and more than any operator to its left.
    fn signed(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let most = if self.is_plain() { 0 } else { MAX_SIGNS };
        let (mut signs, mut negative) = (0, false);
        while let Some(sign) = self.take(&["+", "-"]) {
            signs += 1;
            negative ^= sign == "-";
            if signs > most {
                return None;
            }
        }
        let mut value = self.atom(depth)?;
        if self.take(&["**"]).is_some() {
            let exponent = self.signed(depth + 1)?;
            value = self.defined(self.grammar.power(value, exponent))?;
        }
        Some(match value {
            Value::Exact(value) if negative => Value::Exact(-value),
            Value::Float(value) if negative => Value::Float(-value),
            value => value,
        })
    }

    fn atom(&mut self, depth: u32) -> Option<Value> {
        if self.take(&["("]).is_none() {
            return self.number();
        }
        self.open += 1;
        let inside = self.sum(depth + 1)?;
        self.take(&[")"])?;
        self.open -= 1;
        Some(inside)
    }

    fn number(&mut self) -> Option<Value> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (text, whole) = (self.rest, digits(self.rest));
        let (run, rest) = text.split_at(whole);
        let (value, length) = if let Some(decimals) = rest.strip_prefix('.') {
            let length = whole + 1 + digits(decimals);
            if self.is_plain() || length == 1 {
                return None;
            }
            (Value::Float(text[..length].parse().ok()?), length)
        } else {
            let is_zero = run.bytes().all(|digit| digit == b'0');
            let leads = whole > 1 && run.starts_with('0') && (self.is_plain() || !is_zero);
            let is_short = !self.is_plain() || run.parse::<u32>().is_ok();
            if leads || !is_short || whole > MAX_DIGITS {
                return None;
            }
            (Value::Exact(BigRational::from_integer(run.parse().ok()?)), whole)
        };
        self.rest = &text[length..];
        Some(value)
    }
}

impl Grammar {
    /// The value of one operation; `None` where it has none, or one out of bounds.
    pub fn apply(self, operator: &str, left: Value, right: Value) -> Option<Value> {
        if let (Value::Exact(left), Value::Exact(right)) = (&left, &right) {
            let divisible = !right.is_zero();
            return self.bounded(match operator {
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                "//" if divisible => (left / right).floor(),
                "/" if divisible && self == Self::Python => {
                    let quotient = (left / right).to_f64()?;
                    return quotient.is_finite().then_some(Value::Float(quotient));
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

    fn power(self, base: Value, exponent: Value) -> Option<Value> {
        if let (Value::Exact(base), Value::Exact(exponent)) = (&base, &exponent)
            && exponent.is_integer()
            && (!exponent.is_negative() || self == Self::Exact)
        {
            return raise(base, exponent.numer()).and_then(|power| self.bounded(power));
        }
        let (base, exponent) = (base.to_f64()?, exponent.to_f64()?);
        let error = (base == 0.0 && exponent < 0.0) || (base < 0.0 && exponent.fract() != 0.0);
        // Python raises an error where a double overflows.
        (!error).then(|| base.powf(exponent)).filter(|power| power.is_finite()).map(Value::Float)
    }

    fn bounded(self, value: BigRational) -> Option<Value> {
        let fits = match self {
            Self::Countdown => value.numer().to_i128().and(value.denom().to_i128()).is_some(),
            Self::Python | Self::Exact => bits(&value) <= MAX_BITS,
        };
        fits.then_some(Value::Exact(value))
    }
}

/// Bits of the longer of numerator and denominator.
fn bits(value: &BigRational) -> u64 {
    value.numer().bits().max(value.denom().bits())
}

/// The fraction where its size is in bounds.
pub(crate) fn in_bounds(value: BigRational) -> Option<BigRational> {
    (bits(&value) <= MAX_BITS).then_some(value)
}

/// A whole power, if its size is in bounds.
pub(crate) fn raise(base: &BigRational, exponent: &BigInt) -> Option<BigRational> {
    if exponent.is_zero() || base.is_one() {
        return Some(BigRational::one());
    }
    if base.is_zero() {
        return exponent.is_positive().then(BigRational::zero);
    }
    if (-base).is_one() {
        return Some(if (exponent % 2u8).is_zero() { BigRational::one() } else { base.clone() });
    }
    let exponent = exponent.to_i32()?;
    let fits = bits(base).saturating_mul(u64::from(exponent.unsigned_abs())) <= MAX_BITS;
    fits.then(|| base.pow(exponent))
}

#[cfg(test)]
mod tests;
