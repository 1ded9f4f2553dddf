//! Whether two answers are equal. Not symmetric: what stands in the gold answer decides how the other one
//! is read.
//!
//! Decimals are compared rounded to six places, words letter by letter, all other expressions by their
//! values (see `evaluate.rs`); sets element by element whatever their order, tuples in theirs.

use num_rational::BigRational;

use super::evaluate::{POINTS, at, exact, is_constant};
use super::real_sets::RealSet;
use super::value::{Constant, Node, Relation, Value, nearest};

/// What doubles of equal expressions differ by, at most.
const NEAR: f64 = 1e-9;

/// Points at which both sides must have a value.
const ENOUGH: u32 = 2;

/// Compares.
pub(super) fn equal(gold: &Value, found: &Value) -> bool {
    let (gold, found) = (shortened(gold.clone()), shortened(found.clone()));
    let (gold, found) = if is_equation(&found) && !is_equation(&gold) {
        (gold, right_side(found))
    } else if is_assignment(&gold) && !is_equation(&found) {
        (right_side(gold), found)
    } else {
        (gold, found)
    };
    if is_undefined(&gold) {
        return false;
    }
    if gold == found {
        return true;
    }
    match (&gold, &found) {
        (Value::Relations(left), Value::Relations(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same_relation(left, right))
        }
        // Inequalities may be answered by the set that they describe.
        (Value::Relations(_), found) if found.is_collection() => {
            let sets = RealSet::of(&gold).zip(RealSet::of(found));
            sets.is_some_and(|(gold, found)| gold.is_near(&found))
        }
        // The other way round they may not.
        (_, Value::Relations(_)) => false,
        _ if gold.is_collection() || found.is_collection() => same_collection(&gold, &found),
        (Value::Node(gold), Value::Node(found)) => same_node(gold, found),
        _ => false,
    }
}

/// Of a chain of equations that begins with a name, the name and the last side.
fn shortened(value: Value) -> Value {
    match value {
        Value::Relations(chain) if is_named(&chain) => {
            let ends = chain.first().zip(chain.last());
            let ends = ends.map(|(first, last)| (first.0.clone(), Relation::Equal, last.2.clone()));
            Value::Relations(ends.into_iter().collect())
        }
        value => value,
    }
}

fn is_equation(value: &Value) -> bool {
    matches!(value, Value::Relations(chain) if chain.iter().all(|link| link.1 == Relation::Equal))
}

fn is_named(chain: &[(Value, Relation, Value)]) -> bool {
    let named = |value: &Value| match value {
        Value::Node(node) => node.is_of_symbols(),
        Value::Tuple(names) => {
            names.iter().all(|name| name.node().is_some_and(Node::is_of_symbols))
        }
        _ => false,
    };
    chain.iter().all(|link| link.1 == Relation::Equal)
        && chain.first().is_some_and(|link| named(&link.0))
}

fn is_assignment(value: &Value) -> bool {
    matches!(value, Value::Relations(chain) if is_named(chain))
}

fn right_side(value: Value) -> Value {
    match value {
        Value::Relations(mut chain) => match chain.pop() {
            Some((_, _, right)) => right,
            None => Value::Relations(chain),
        },
        value => value,
    }
}

fn is_undefined(value: &Value) -> bool {
    matches!(value, Value::Node(Node::Undefined))
}

fn same_relation(
    (gold_left, gold, gold_right): &(Value, Relation, Value),
    (left, found, right): &(Value, Relation, Value),
) -> bool {
    let nodes = || Some((gold_left.node()?, gold_right.node()?, left.node()?, right.node()?));
    let Some((gold_left, gold_right, left, right)) = nodes() else {
        let nested = |value: &Value| matches!(value, Value::Relations(_));
        return gold == found
            && nested(gold_right) == nested(right)
            && equal(gold_left, left)
            && equal(gold_right, right);
    };
    let difference = |left: &Node, right: &Node| left.clone().plus(right.clone().negative());
    let expected = difference(gold_left, gold_right);
    (gold == found && same_node(&expected, &difference(left, right)))
        || (gold.flipped() == *found && same_node(&expected, &difference(right, left)))
        || (*gold == Relation::Equal
            && *found == Relation::Equal
            && proportional(&expected, &difference(left, right)))
}

/// Whether one side is a constant times the other: the same solutions.
fn proportional(gold: &Node, found: &Node) -> bool {
    let ratios: Vec<_> = (0..POINTS)
        .filter_map(|point| Some(at(gold, point)? / at(found, point)?))
        .filter(|ratio| ratio.re.is_finite() && ratio.norm() > NEAR)
        .collect();
    let Some(first) = ratios.first() else { return false };
    ratios.len() > ENOUGH as usize
        && ratios.iter().all(|ratio| (ratio - first).norm() <= NEAR * first.norm())
}

fn same_collection(gold: &Value, found: &Value) -> bool {
    if let (
        Value::Interval { start: gold_start, end: gold_end, open: gold_open },
        Value::Interval { start, end, open },
    ) = (gold, found)
    {
        return gold_open == open && same_node(gold_start, start) && same_node(gold_end, end);
    }
    let both_sets = ![gold, found].iter().any(|value| matches!(value, Value::Tuple(_)));
    if both_sets
        && let Some((gold, found)) = RealSet::of(gold).zip(RealSet::of(found))
        && gold.is_near(&found)
    {
        return true;
    }
    match (gold, found) {
        (Value::Tuple(gold), Value::Tuple(found) | Value::Set(found)) => in_order(gold, found),
        // `(1,2)` was read as an interval and may be meant as a point, or as two answers.
        (Value::Interval { start, end, open: (true, true) }, other) => {
            let pair = [Value::Node(start.clone()), Value::Node(end.clone())];
            match other {
                Value::Tuple(found) | Value::Set(found) => in_order(&pair, found),
                _ => false,
            }
        }
        (other, Value::Interval { start, end, open: (true, true) }) => {
            let pair = [Value::Node(start.clone()), Value::Node(end.clone())];
            match other {
                Value::Tuple(gold) => in_order(gold, &pair),
                Value::Set(gold) => in_any_order(gold, &pair),
                _ => false,
            }
        }
        (Value::Set(gold), Value::Set(found) | Value::Tuple(found)) => in_any_order(gold, found),
        (Value::Set(gold), found @ Value::Node(_)) => {
            in_any_order(gold, std::slice::from_ref(found))
        }
        (gold @ Value::Node(_), Value::Set(found)) => {
            in_any_order(std::slice::from_ref(gold), found)
        }
        _ => false,
    }
}

fn in_order(gold: &[Value], found: &[Value]) -> bool {
    gold.len() == found.len() && gold.iter().zip(found).all(|(gold, found)| equal(gold, found))
}

/// Whether each gold element has one of its own; what occurs twice counts once.
fn in_any_order(gold: &[Value], found: &[Value]) -> bool {
    let once = |values: &[Value]| {
        let mut kept: Vec<Value> = Vec::new();
        for value in values {
            if !kept.contains(value) {
                kept.push(value.clone());
            }
        }
        kept
    };
    let (gold, mut found) = (once(gold), once(found));
    gold.len() == found.len()
        && gold.iter().all(|gold| {
            let place = found.iter().position(|found| equal(gold, found));
            place.is_some_and(|place| {
                found.remove(place);
                true
            })
        })
}

fn same_node(gold: &Node, found: &Node) -> bool {
    if gold == found {
        return true;
    }
    if matches!(gold, Node::Symbol { .. }) || matches!(found, Node::Symbol { .. }) {
        let words =
            spelled(gold).or_else(|| digits(gold)).zip(spelled(found).or_else(|| digits(found)));
        return words.is_some_and(|(gold, found)| gold == found);
    }
    if let Some((gold, found)) = matrix(gold).zip(matrix(found)) {
        return gold.len() == found.len()
            && gold.iter().zip(&found).all(|(gold, found)| {
                gold.len() == found.len()
                    && gold.iter().zip(found).all(|(gold, found)| same_node(gold, found))
            });
    }
    if is_decimal(gold) || is_decimal(found) {
        return rounded(gold).zip(rounded(found)).is_some_and(|(gold, found)| gold == found);
    }
    if let Some((gold, found)) = exact(gold).zip(exact(found)) {
        return gold == found;
    }
    if gold.is_infinite() || found.is_infinite() {
        let values = super::evaluate::real(gold).zip(super::evaluate::real(found));
        return values.is_some_and(|(gold, found)| gold == found);
    }
    same_values(gold, found)
}

fn same_values(gold: &Node, found: &Node) -> bool {
    if is_constant(gold) != is_constant(found) {
        // Symbols that fall away, as in `x - x`, are seen at the points below.
        let differs = (0..ENOUGH).any(|point| at(gold, point).is_none());
        if differs {
            return false;
        }
    }
    let mut seen = 0;
    for point in 0..POINTS {
        let (Some(gold), Some(found)) = (at(gold, point), at(found, point)) else { continue };
        let size = gold.norm().max(found.norm()).max(1e-6);
        if (gold - found).norm() > NEAR * size {
            return false;
        }
        seen += 1;
    }
    seen >= ENOUGH
}

/// A word: one symbol, or a product of letters as which it was read.
fn spelled(node: &Node) -> Option<String> {
    match node {
        Node::Symbol { name, .. } => Some(name.clone()),
        Node::Constant(Constant::Euler) => Some("e".to_owned()),
        Node::Product(factors) => factors
            .iter()
            .map(|factor| match factor {
                Node::Product(_) => None,
                factor => spelled(factor),
            })
            .collect(),
        _ => None,
    }
}

/// A fraction as a text, to be compared with what stands in a `\text{…}`.
fn digits(node: &Node) -> Option<String> {
    match node {
        Node::Number(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A lone decimal, perhaps with a percent sign.
fn is_decimal(node: &Node) -> bool {
    match node {
        Node::Float(_) => true,
        Node::Percent(inside) => matches!(**inside, Node::Float(_)),
        _ => false,
    }
}

/// A constant to six decimal places, half to even.
fn rounded(node: &Node) -> Option<f64> {
    let value = match exact(node) {
        Some(value) => nearest(&value),
        None => super::evaluate::real(node)?,
    };
    let places = (value * 1e6).round_ties_even();
    (places.is_finite()).then_some(places)
}

/// A matrix, also as a sum or a multiple of others.
fn matrix(node: &Node) -> Option<Vec<Vec<Node>>> {
    match node {
        Node::Matrix(rows) => Some(rows.clone()),
        Node::Sum(nodes) => {
            let mut matrices = nodes.iter().map(matrix);
            let first = matrices.next()??;
            matrices.try_fold(first, |sum, next| {
                let next = next?;
                let fits = sum.len() == next.len() && sum[0].len() == next[0].len();
                fits.then(|| {
                    let rows = sum.into_iter().zip(next);
                    rows.map(|(left, right)| {
                        left.into_iter().zip(right).map(|(l, r)| l.plus(r)).collect()
                    })
                    .collect()
                })
            })
        }
        Node::Product(factors) => {
            let mut rows = None;
            let mut scale = Node::Number(BigRational::from_integer(1.into()));
            for factor in factors {
                match (matrix(factor), &rows) {
                    (Some(found), None) => rows = Some(found),
                    (Some(_), Some(_)) => return None,
                    (None, _) => scale = scale.times(factor.clone()),
                }
            }
            let scaled = |row: Vec<Node>| row.into_iter().map(|cell| cell.times(scale.clone()));
            rows.map(|rows| rows.into_iter().map(|row| scaled(row).collect()).collect())
        }
        _ => None,
    }
}
