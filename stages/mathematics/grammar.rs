//! Parses tokens to an answer, by recursive descent with backtracking.
//!
//! An answer is an assignment (`x = …`, `x \in …`), a list of elements, or a set built of others, in this
//! order; where several readings fit, the first one counts. Nesting beyond [`MAX_DEPTH`] and work beyond
//! [`MAX_STEPS`] are refused. `None` means unreadable.

use std::sync::LazyLock;

use num_rational::BigRational;
use regex::Regex;

use super::lexer::{Token, tokens};
use super::value::{Node, Relation, Value};
use crate::patterns::pattern;

mod analysis;
mod atoms;
mod sets;

/// The most levels that may be open at once, of any kind.
const MAX_DEPTH: u32 = 60;

/// Signs in front of a factor: the reference's parser, which descends for each, gets as far.
const MAX_SIGNS: u32 = 296;

/// The most characters of an answer. A longer text is no answer, and reading it would take seconds.
const MAX_LENGTH: usize = 4096;

/// Digits of a whole number, as in Python.
const MAX_DIGITS: usize = 4300;

/// Tokens that may be read, backtracking included.
const MAX_STEPS: u32 = 400_000;

/// Digits that a double always holds exactly.
const DIGITS: usize = 15;

/// Reads LaTeX; if that fails, the right side of its last equals sign.
pub(super) fn parse(text: &str) -> Option<Value> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    parse_whole(text).or_else(|| parse_whole(last_side(text)?))
}

/// The text behind the last of several equals signs, unless there are lists.
fn last_side(text: &str) -> Option<&str> {
    if text.contains([',', ';']) {
        return None;
    }
    let mut sides = text
        .match_indices('=')
        .filter(|(index, _)| !text[..*index].ends_with(['\\', '<', '!', '>']));
    let (last, _) = sides.next_back()?;
    sides.next_back()?;
    Some(&text[last + 1..])
}

fn parse_whole(text: &str) -> Option<Value> {
    let tokens = tokens(text)?;
    let mut parser = Parser::new(&tokens, is_complex(text));
    parser
        .complete(Parser::assignment)
        .or_else(|| {
            let elements = parser.complete(Parser::elements)?;
            Some(grouped_number(text).unwrap_or(elements))
        })
        .or_else(|| parser.complete(Parser::set_assignment))
}

/// Whether a text speaks of complex numbers, whose symbols differ from real ones.
fn is_complex(text: &str) -> bool {
    static SIGNS: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"\\mathbb\{C\}|\bi\b|\\text\{i\}|\\mathrm\{i\}|\\imath\b|\\det|\\operatorname\{(?:tr|rank|Re|Im)\}|\\text\{(?:rank|Re|Im)\}|\\arg\{|\\Re\{|\\Im\{",
        )
    });
    SIGNS.is_match(text)
}

/// `58,500`: one number and not two, if nothing else stands beside it.
fn grouped_number(text: &str) -> Option<Value> {
    static GROUPED: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"^\s*-?\d{1,3}(,\d{3})+(\.\d+)?\s*$"));
    if !GROUPED.is_match(text) {
        return None;
    }
    // If a zero comes first, the comma is a decimal point.
    let text = text.trim();
    let separator = if text.starts_with('0') { "." } else { "" };
    number(&text.replace(',', separator)).map(Value::Node)
}

/// Digits, perhaps with a sign and a point.
pub(super) fn number(text: &str) -> Option<Node> {
    if text.len() > MAX_DIGITS {
        return None;
    }
    if text.contains('E') {
        return text.parse().ok().filter(|value: &f64| value.is_finite()).map(Node::Float);
    }
    let Some((whole, decimals)) = text.split_once('.') else {
        return text.parse().ok().map(|whole| Node::Number(BigRational::from_integer(whole)));
    };
    let digits = format!("{whole}{decimals}");
    if digits.trim_start_matches(['-', '0']).len() <= DIGITS {
        return text.parse().ok().map(Node::Float);
    }
    let scale = num_bigint::BigInt::from(10u8).pow(u32::try_from(decimals.len()).ok()?);
    Some(Node::Long(BigRational::new(digits.parse().ok()?, scale)))
}

fn transposed(rows: &[Vec<Node>]) -> Vec<Vec<Node>> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|column| rows.iter().map(|row| row[column].clone()).collect()).collect()
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: u32,
    steps: u32,
    complex: bool,
    /// Whether the text makes no sense in any reading.
    broken: bool,
    /// Whether `dx` is a name: not where it may end an integrand.
    differentials: bool,
}

impl<'a> Parser<'a> {
    fn new(tokens: &'a [Token], complex: bool) -> Self {
        let (next, depth, steps) = (0, 0, 0);
        Self { tokens, next, depth, steps, complex, broken: false, differentials: true }
    }

    /// Runs a rule that must use every token.
    fn complete(&mut self, rule: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        (self.next, self.depth) = (0, 0);
        rule(self).filter(|_| self.next == self.tokens.len() && !self.broken)
    }

    /// Runs a rule; a failure leaves no trace.
    fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let (next, depth) = (self.next, self.depth);
        self.depth += 1;
        let result = if self.depth > MAX_DEPTH { None } else { rule(self) };
        self.depth = depth;
        if result.is_none() {
            self.next = next;
        }
        result
    }

    fn peek(&mut self) -> Option<&Token> {
        self.steps += 1;
        if self.steps > MAX_STEPS { None } else { self.tokens.get(self.next) }
    }

    /// The sign that comes next, if it is one of these.
    fn take(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Token::Sign(sign) = self.peek()? else { return None };
        let sign = *sign;
        signs.contains(&sign).then(|| {
            self.next += 1;
            sign
        })
    }

    fn relation(&mut self) -> Option<Value> {
        let mut left = Value::Node(self.expression()?);
        while let Some(sign) = self.take(&["=", "!=", "<", "<=", ">", ">=", "approx"]) {
            let right = Value::Node(self.expression()?);
            let relation = match sign {
                "=" => Relation::Equal,
                "!=" => Relation::Unequal,
                "<" => Relation::Less,
                "<=" => Relation::AtMost,
                ">" => Relation::More,
                ">=" => Relation::AtLeast,
                // The exact side of an approximation counts, unless it is a name.
                _ => {
                    if left.node().is_some_and(Node::is_of_symbols) {
                        left = right;
                    }
                    continue;
                }
            };
            left = match left {
                Value::Relations(mut chain) => {
                    let middle = chain.last()?.2.clone();
                    chain.push((middle, relation, right));
                    Value::Relations(chain)
                }
                left => Value::Relations(vec![(left, relation, right)]),
            };
        }
        Some(left)
    }

    fn expression(&mut self) -> Option<Node> {
        self.attempt(|parser| {
            let mut sum = parser.product(false)?;
            while let Some(sign) = parser.take(&["+", "-"]) {
                let next = parser.product(false)?;
                sum = sum.plus(if sign == "-" { next.negative() } else { next });
            }
            Some(sum)
        })
    }

    /// `plain` factors are those behind a function without parentheses: the next function ends them.
    fn product(&mut self, plain: bool) -> Option<Node> {
        let mut product = self.signed(plain)?;
        let mut nested = 0;
        while let Some(sign) = self.take(&["*", "/", "mod"]) {
            let next = self.signed(plain)?;
            product = match sign {
                "*" => product.times(next),
                "/" => product.over(next),
                _ => {
                    nested += 1;
                    Node::function("mod", vec![product, next])
                }
            };
        }
        (nested <= MAX_DEPTH).then_some(product)
    }

    fn signed(&mut self, plain: bool) -> Option<Node> {
        let (mut signs, mut negative) = (0, false);
        while let Some(sign) = self.take(&["+", "-"]) {
            signs += 1;
            negative ^= sign == "-";
        }
        if signs > MAX_SIGNS {
            return None;
        }
        let value = self.factors(plain)?;
        Some(if negative { value.negative() } else { value })
    }

    /// Factors side by side.
    fn factors(&mut self, plain: bool) -> Option<Node> {
        let mut factors = vec![self.postfix(false)?];
        while let Some(factor) = self.attempt(|parser| parser.postfix(plain)) {
            factors.push(factor);
        }
        let last = factors.pop()?;
        Some(factors.into_iter().rev().fold(last, |rest, factor| factor.beside(rest)))
    }

    fn postfix(&mut self, plain: bool) -> Option<Node> {
        let mut node = self.power(plain)?;
        let mut nested = 0;
        while let Some(sign) = self.take(&["!", "degree", "transpose"]) {
            nested += 1;
            node = match (sign, node) {
                ("!", node) => Node::function("factorial", vec![node]),
                ("transpose", Node::Matrix(rows)) => Node::Matrix(transposed(&rows)),
                (_, node) => node,
            };
        }
        (nested <= MAX_DEPTH).then_some(node)
    }

    fn power(&mut self, plain: bool) -> Option<Node> {
        let mut base = self.component(plain)?;
        let mut nested = 0;
        while let Some(exponent) = self.attempt(Self::superscript) {
            nested += 1;
            self.attempt(Self::subscript);
            base = base.raised_to(exponent);
        }
        (nested <= MAX_DEPTH).then_some(base)
    }

    fn superscript(&mut self) -> Option<Node> {
        self.script("^")
    }

    /// An atom, or an expression in braces, behind a sign.
    fn script(&mut self, sign: &'static str) -> Option<Node> {
        self.take(&[sign])?;
        self.attempt(Self::atom).or_else(|| self.braced())
    }

    fn braced(&mut self) -> Option<Node> {
        self.enclosed("{", "}", Self::expression)
    }

    /// The result of a rule between two signs.
    fn enclosed<T>(
        &mut self,
        open: &'static str,
        close: &'static str,
        rule: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        self.take(&[open])?;
        let inside = rule(self)?;
        self.take(&[close])?;
        Some(inside)
    }

    /// The results of a rule, once or more, with a sign between.
    fn separated<T>(
        &mut self,
        sign: &'static str,
        rule: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut all = vec![rule(self)?];
        while self.take(&[sign]).is_some() {
            all.push(rule(self)?);
        }
        Some(all)
    }
}
