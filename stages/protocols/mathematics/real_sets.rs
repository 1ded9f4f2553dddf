//! Sets of real numbers as intervals, by which unions and the like are compared.
//!
//! Ends are doubles: the sets of answers are simple, and their ends were compared exactly elsewhere where
//! that matters. Sets with symbols in them, and the whole numbers, are not here.

use super::evaluate::real;
use super::value::{Relation, Value};

/// Ends that differ by less are one.
const NEAR: f64 = 1e-9;

/// An end of an interval: the place, and whether it lies before, at or behind that place (-1, 0, 1).
type Edge = (f64, i8);

/// Disjoint intervals in their order: from the first edge to the second, where a closed start is an edge
/// before its place and a closed end one behind it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RealSet(Vec<(Edge, Edge)>);

impl RealSet {
    /// A set of real numbers; `None` if it is none, or has symbols.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Node(node) => Self::point(real(node)?),
            Value::Set(elements) | Value::Tuple(elements) => {
                // A set of intervals is not their union.
                elements.iter().try_fold(Self::default(), |all, element| {
                    Some(all.union(&Self::point(real(element.node()?)?)))
                })?
            }
            Value::Interval { start, end, open } => Self::span((real(start)?, real(end)?), *open),
            Value::Union(first, second) => Self::of(first)?.union(&Self::of(second)?),
            Value::Intersection(first, second) => Self::of(first)?.intersection(&Self::of(second)?),
            Value::Without(first, second) => {
                Self::of(first)?.intersection(&Self::of(second)?.complement())
            }
            Value::Named('∅') => Self::default(),
            Value::Named('R') => Self::span((f64::NEG_INFINITY, f64::INFINITY), (true, true)),
            Value::Named(_) => return None,
            Value::Relations(chain) => Self::of_relations(chain)?,
        })
    }

    /// What the one symbol of a chain of inequalities may be.
    fn of_relations(chain: &[(Value, Relation, Value)]) -> Option<Self> {
        let mut all = Self::span((f64::NEG_INFINITY, f64::INFINITY), (true, true));
        let mut symbol = None;
        for (left, relation, right) in chain {
            let (left, right) = (left.node()?, right.node()?);
            let (name, relation, bound) = match (real(left), real(right)) {
                (None, Some(bound)) if left.is_of_symbols() => (left, *relation, bound),
                (Some(bound), None) if right.is_of_symbols() => (right, relation.flipped(), bound),
                _ => return None,
            };
            if symbol.replace(name).is_some_and(|other| other != name) {
                return None;
            }
            let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
            let part = match relation {
                Relation::Equal => Self::point(bound),
                Relation::Unequal => Self::point(bound).complement(),
                Relation::Less => Self::span((low, bound), (true, true)),
                Relation::AtMost => Self::span((low, bound), (true, false)),
                Relation::More => Self::span((bound, high), (true, true)),
                Relation::AtLeast => Self::span((bound, high), (false, true)),
            };
            all = all.intersection(&part);
        }
        Some(all)
    }

    fn point(value: f64) -> Self {
        Self::span((value, value), (false, false))
    }

    fn span((start, end): (f64, f64), open: (bool, bool)) -> Self {
        let edges = ((start, if open.0 { 1 } else { -1 }), (end, if open.1 { -1 } else { 1 }));
        Self(if edges.0 < edges.1 { vec![edges] } else { Vec::new() })
    }

    fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(Edge, Edge)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_by(|left, right| left.0.0.total_cmp(&right.0.0).then(left.0.1.cmp(&right.0.1)));
        let mut joined: Vec<(Edge, Edge)> = Vec::new();
        for (start, end) in all {
            match joined.last_mut() {
                Some(last) if start <= last.1 => {
                    if end > last.1 {
                        last.1 = end;
                    }
                }
                _ => joined.push((start, end)),
            }
        }
        Self(joined)
    }

    fn intersection(&self, other: &Self) -> Self {
        let mut common = Vec::new();
        for left in &self.0 {
            for right in &other.0 {
                let start = if left.0 > right.0 { left.0 } else { right.0 };
                let end = if left.1 < right.1 { left.1 } else { right.1 };
                if start < end {
                    common.push((start, end));
                }
            }
        }
        Self(common).union(&Self::default())
    }

    fn complement(&self) -> Self {
        let mut start = (f64::NEG_INFINITY, 1);
        let mut rest = Vec::new();
        for (from, to) in &self.0 {
            if start < *from {
                rest.push((start, *from));
            }
            start = *to;
        }
        let end = (f64::INFINITY, -1);
        if start < end {
            rest.push((start, end));
        }
        Self(rest)
    }

    /// Whether two sets are one, up to the noise of doubles.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let near = |left: Edge, right: Edge| {
            let close = left.0 == right.0
                || (left.0 - right.0).abs() <= NEAR * left.0.abs().max(right.0.abs()).max(1.0);
            close && left.1 == right.1
        };
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(l, r)| near(l.0, r.0) && near(l.1, r.1))
    }
}
