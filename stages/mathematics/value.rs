//! The forms of an answer: an expression, a set, a tuple, an interval, a relation.
//!
//! Expressions keep the shape in which they were written, since some comparisons look at it: whether an
//! answer is a lone decimal, or a word that was read as a product of letters. Nothing is evaluated here.

use std::collections::BTreeSet;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A whole number or a fraction of two.
    Number(BigRational),
    /// A decimal.
    Float(f64),
    /// A decimal of more digits than a double holds.
    Long(BigRational),
    /// A letter, a Greek letter or a text, in lower case. Texts that speak of complex numbers have symbols
    /// of their own.
    Symbol {
        name: String,
        complex: bool,
    },
    Constant(Constant),
    /// A hundredth, kept apart from products.
    Percent(Box<Self>),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    Power(Box<Self>, Box<Self>),
    /// A function by its name; unknown ones are equal to themselves only.
    Function {
        name: String,
        arguments: Vec<Self>,
    },
    /// A sum, product or integral from one end to the other, or a limit: its place, and 1 or -1 for the
    /// side from which it is approached.
    Bound {
        kind: Kind,
        name: String,
        body: Box<Self>,
        from: Box<Self>,
        to: Box<Self>,
    },
    /// Row by row.
    Matrix(Vec<Vec<Self>>),
    /// A division by zero, or too large.
    Undefined,
}

/// The operators that bind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sum,
    Product,
    Limit,
    Integral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    Pi,
    Euler,
    Imaginary,
    Infinity,
}

impl Node {
    pub(super) fn whole(value: impl Into<BigInt>) -> Self {
        Self::Number(BigRational::from_integer(value.into()))
    }

    pub(super) fn function(name: &str, arguments: Vec<Self>) -> Self {
        Self::Function { name: name.to_owned(), arguments }
    }

    pub(super) fn percent(self) -> Self {
        Self::Percent(Box::new(self))
    }

    pub(super) fn as_whole(&self) -> Option<&BigInt> {
        match self {
            Self::Number(value) if value.is_integer() => Some(value.numer()),
            _ => None,
        }
    }

    pub(super) fn negative(self) -> Self {
        match self {
            Self::Number(value) => Self::Number(-value),
            Self::Float(value) => Self::Float(-value),
            Self::Long(value) => Self::Long(-value),
            node => Self::whole(-1).times(node),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let Self::Sum(mut left) = self else { return Self::Sum(vec![self, other]) };
        match other {
            Self::Sum(right) => left.extend(right),
            right => left.push(right),
        }
        Self::Sum(left)
    }

    pub(super) fn times(self, other: Self) -> Self {
        let factors = |node| match node {
            Self::Product(factors) => factors,
            node => vec![node],
        };
        let mut product = factors(self);
        product.extend(factors(other));
        Self::Product(product)
    }

    pub(super) fn raised_to(self, exponent: Self) -> Self {
        Self::Power(Box::new(self), Box::new(exponent))
    }

    /// The power; itself without an exponent.
    pub(super) fn perhaps_raised(self, exponent: Option<Self>) -> Self {
        match exponent {
            Some(exponent) => self.raised_to(exponent),
            None => self,
        }
    }

    /// A quotient; a fraction where both are whole.
    pub(super) fn over(self, other: Self) -> Self {
        match (self.as_whole(), other.as_whole()) {
            (Some(_), Some(below)) if below.bits() == 0 => Self::Undefined,
            (Some(above), Some(below)) => {
                Self::Number(BigRational::new(above.clone(), below.clone()))
            }
            _ => self.times(other.raised_to(Self::whole(-1))),
        }
    }

    /// One factor behind another: a product, or a mixed number such as `1\frac{4}{5}`.
    pub(super) fn beside(self, other: Self) -> Self {
        if let (Some(whole), Self::Number(part)) = (self.as_whole(), &other)
            && part.is_positive()
        {
            let whole = BigRational::from_integer(whole.clone());
            return Self::Number(if whole.is_negative() { whole - part } else { whole + part });
        }
        self.times(other)
    }

    pub(super) fn bound(kind: Kind, name: String, body: Self, from: Self, to: Self) -> Self {
        Self::Bound { kind, name, body: Box::new(body), from: Box::new(from), to: Box::new(to) }
    }

    /// The expressions that this one is directly made of.
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Sum(nodes) | Self::Product(nodes) | Self::Function { arguments: nodes, .. } => {
                nodes.iter().collect()
            }
            Self::Percent(inside) => vec![inside],
            Self::Power(base, exponent) => vec![base, exponent],
            Self::Matrix(rows) => rows.iter().flatten().collect(),
            Self::Bound { body, from, to, .. } => vec![body, from, to],
            _ => Vec::new(),
        }
    }

    pub(super) fn size(&self) -> usize {
        1 + self.parts().into_iter().map(Self::size).sum::<usize>()
    }

    /// Whether `is_so` holds for a part of the expression, or for all of it.
    pub(super) fn any(&self, is_so: &mut impl FnMut(&Self) -> bool) -> bool {
        is_so(self) || self.parts().into_iter().any(|node| node.any(is_so))
    }

    /// The names that occur, without those that are bound.
    pub(super) fn symbols(&self) -> BTreeSet<String> {
        match self {
            Self::Symbol { name, .. } => BTreeSet::from([name.clone()]),
            Self::Bound { name, body, from, to, .. } => {
                let mut names = body.symbols();
                names.remove(name);
                names.into_iter().chain(from.symbols()).chain(to.symbols()).collect()
            }
            node => node.parts().into_iter().flat_map(Self::symbols).collect(),
        }
    }

    /// The expression with others in place of some parts.
    pub(super) fn mapped(&self, other: &impl Fn(&Self) -> Option<Self>) -> Self {
        if let Some(node) = other(self) {
            return node;
        }
        let all = |nodes: &[Self]| nodes.iter().map(|node| node.mapped(other)).collect();
        match self {
            Self::Sum(nodes) => Self::Sum(all(nodes)),
            Self::Product(nodes) => Self::Product(all(nodes)),
            Self::Percent(inside) => inside.mapped(other).percent(),
            Self::Power(base, exponent) => base.mapped(other).raised_to(exponent.mapped(other)),
            Self::Function { name, arguments } => Self::function(name, all(arguments)),
            Self::Matrix(rows) => Self::Matrix(rows.iter().map(|row| all(row)).collect()),
            Self::Bound { kind, name, body, from, to } => {
                let [body, from, to] = [body, from, to].map(|node| node.mapped(other));
                Self::bound(*kind, name.clone(), body, from, to)
            }
            node => node.clone(),
        }
    }

    /// Whether only symbols occur.
    pub(super) fn is_of_symbols(&self) -> bool {
        match self {
            Self::Symbol { .. } => true,
            Self::Power(base, exponent) => {
                base.is_of_symbols() && (exponent.is_of_symbols() || **exponent == Self::whole(-1))
            }
            Self::Sum(nodes) | Self::Product(nodes) => nodes.iter().all(Self::is_of_symbols),
            Self::Function { arguments, .. } => arguments.iter().all(Self::is_of_symbols),
            _ => false,
        }
    }

    pub(super) fn is_infinite(&self) -> bool {
        match self {
            Self::Constant(Constant::Infinity) => true,
            Self::Product(factors) => factors.iter().any(Self::is_infinite),
            _ => false,
        }
    }
}

impl From<crate::expression::Value> for Node {
    fn from(value: crate::expression::Value) -> Self {
        match value {
            crate::expression::Value::Exact(value) => Self::Number(value),
            crate::expression::Value::Float(value) => Self::Float(value),
            crate::expression::Value::Undefined => Self::Undefined,
        }
    }
}

/// How two sides are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Relation {
    /// The relation read from right to left.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Equal | Self::Unequal => self,
            Self::Less => Self::More,
            Self::AtMost => Self::AtLeast,
            Self::More => Self::Less,
            Self::AtLeast => Self::AtMost,
        }
    }
}

/// A part of a chain of relations.
pub(super) type Link = (Value, Relation, Value);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Node(Node),
    /// Elements in the order of the text, perhaps repeated.
    Set(Vec<Self>),
    Tuple(Vec<Self>),
    Interval {
        start: Node,
        end: Node,
        open: (bool, bool),
    },
    Union(Box<Self>, Box<Self>),
    Intersection(Box<Self>, Box<Self>),
    Without(Box<Self>, Box<Self>),
    /// A set of numbers, by its letter; the empty set is `∅`.
    Named(char),
    /// One relation, or a chain of them.
    Relations(Vec<Link>),
}

impl Value {
    pub(super) fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            _ => None,
        }
    }

    /// Sets and tuples, which are compared element by element.
    pub(super) fn is_collection(&self) -> bool {
        !matches!(self, Self::Node(_) | Self::Relations(_))
    }
}

/// A fraction as the nearest double.
pub(super) fn nearest(value: &BigRational) -> f64 {
    value.to_f64().unwrap_or(f64::NAN)
}
