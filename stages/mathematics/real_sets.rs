//! Sets of real numbers as intervals, by which unions and the like are compared.
//!
//! Ends are doubles: the sets of answers are simple, and where it matters their ends were already compared exactly.
//! Sets with symbols, and the whole numbers, are not supported. Inequalities are not solved: they are evaluated at
//! places on either side of a set's ends.

use std::collections::BTreeSet;

use super::evaluate::{real, with};
use super::nodes::NEAR;
use super::value::{Link, Node, Relation, Value};

/// Half the places of a grid.
const GRID: i32 = 200;

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
            Value::Named(_) | Value::Relations(_) => return None,
        })
    }

    /// Whether a chain of relations of one symbol holds in this set and nowhere else.
    ///
    /// Evaluates the chain at the set's ends, beside and between them, and on a grid that contains no simple number:
    /// enough for answers, but no proof.
    pub(super) fn is_where(&self, chain: &[Link]) -> bool {
        let chain: Vec<_> = chain.iter().map(named).collect();
        let Some(name) = only_symbol(&chain) else { return false };
        let mut ends: Vec<f64> = self.0.iter().flat_map(|(from, to)| [from.0, to.0]).collect();
        ends.retain(|end| end.is_finite());
        let beside = ends.iter().flat_map(|end| {
            let step = 1e-4 * end.abs().max(1.0);
            [end - step, *end, end + step]
        });
        let between = ends.windows(2).map(|pair| f64::midpoint(pair[0], pair[1]));
        let near = (-GRID..=GRID).map(|step| f64::from(step) * 0.099_713 + 0.000_377);
        let far = (-GRID..=GRID).map(|step| f64::from(step).powi(3) * 0.011_31 + 0.017);
        let simple = (-GRID..=GRID).map(|step| f64::from(step) / 2.0);
        let grid: Vec<f64> = beside.chain(between).chain(near).chain(far).chain(simple).collect();
        let crossed = chain.iter().flat_map(|link| crossings(link, &name, &grid));
        let places: Vec<f64> = crossed.chain(grid.iter().copied()).collect();
        places.into_iter().all(|place| {
            let holds = chain.iter().all(|link| holds(link, &name, place));
            holds == self.contains(place)
        })
    }

    pub(super) fn has_gaps(&self) -> bool {
        self.0.len() > 1
    }

    fn contains(&self, place: f64) -> bool {
        self.0.iter().any(|(from, to)| *from <= (place, 0) && (place, 0) <= *to)
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

    /// Whether two sets are one, up to the noise of doubles. An infinite end is near itself alone.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let near = |left: Edge, right: Edge| left.1 == right.1 && is_near(left.0, right.0);
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(l, r)| near(l.0, r.0) && near(l.1, r.1))
    }
}

fn is_near(left: f64, right: f64) -> bool {
    let finite = left.is_finite() && right.is_finite();
    left == right || (finite && (left - right).abs() <= NEAR * left.abs().max(right.abs()))
}

/// The link with a symbol in place of each `f(x)`.
fn named((left, relation, right): &Link) -> Link {
    let side = |value: &Value| match value {
        Value::Node(node) => Value::Node(node.mapped(&|node| match node {
            Node::Function { name, .. } if name.starts_with("of ") => {
                Some(Node::Symbol { name: format!("{node:?}"), complex: false })
            }
            _ => None,
        })),
        value => value.clone(),
    };
    (side(left), *relation, side(right))
}

/// The one symbol of a chain, whatever else is in it.
pub(super) fn only_symbol(chain: &[Link]) -> Option<String> {
    let mut names = BTreeSet::new();
    for (left, _, right) in chain {
        names.extend(left.node()?.symbols());
        names.extend(right.node()?.symbols());
    }
    names.pop_first().filter(|_| names.is_empty())
}

/// One side less the other, with the symbol at a place.
fn difference((left, _, right): &Link, name: &str, place: f64) -> Option<f64> {
    let side = |value: &Value| {
        let node = value.node()?;
        if node.is_infinite() {
            return real(node);
        }
        with(node, name, place).filter(|value| value.im.abs() <= NEAR).map(|value| value.re)
    };
    let (left, right) = (side(left)?, side(right)?);
    Some(if is_near(left, right) { 0.0 } else { left - right })
}

/// The places at which one side equals the other, between places of a grid.
fn crossings(link: &Link, name: &str, grid: &[f64]) -> Vec<f64> {
    let mut grid = grid.to_vec();
    grid.sort_by(f64::total_cmp);
    let values: Vec<Option<f64>> =
        grid.iter().map(|place| difference(link, name, *place)).collect();
    let mut found = Vec::new();
    for (places, values) in grid.windows(2).zip(values.windows(2)) {
        let (Some(first), Some(last)) = (values[0], values[1]) else { continue };
        if first * last >= 0.0 {
            continue;
        }
        let (mut low, mut high) = (places[0], places[1]);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            match difference(link, name, middle) {
                Some(value) if value * first > 0.0 => low = middle,
                Some(_) => high = middle,
                None => break,
            }
        }
        found.push(high);
    }
    found
}

/// Whether one link of a chain holds with the symbol at a place.
fn holds(link: &Link, name: &str, place: f64) -> bool {
    let Some(difference) = difference(link, name, place) else { return false };
    match link.1 {
        Relation::Equal => difference == 0.0,
        Relation::Unequal => difference != 0.0,
        Relation::Less => difference < 0.0,
        Relation::AtMost => difference <= 0.0,
        Relation::More => difference > 0.0,
        Relation::AtLeast => difference >= 0.0,
    }
}
