//! Whether two answers are equal. Not symmetric: the form of the gold answer decides how the other one is
//! read.
//!
//! Decimals are compared rounded to six places, words letter by letter, all other expressions by their
//! values (see `evaluate.rs`); sets element by element whatever their order, tuples in theirs.

use super::evaluate::{ALL_POINTS, POINTS, at, exact, is_constant};
use super::extract::Parsed;
use super::nodes::{ENOUGH, FAR, NEAR, same_node};
use super::real_sets::{RealSet, only_symbol};
use super::value::{Link, Node, Relation, Value};
use crate::python::strip;

/// The most elements that are compared each with each.
const MOST_ELEMENTS: usize = 256;

/// Whether an answer is the gold one. Not symmetric: an equation may be answered by its right side.
pub fn same(gold: &Parsed, found: &Parsed) -> bool {
    let values = gold.value.as_ref().zip(found.value.as_ref());
    let texts = gold.text().zip(found.text());
    values.is_some_and(|(gold, found)| equal(gold, found))
        || texts.is_some_and(|(gold, found)| {
            let (gold, found) = (strip(gold), strip(found));
            !gold.is_empty() && gold == found
        })
}

fn equal(gold: &Value, found: &Value) -> bool {
    let (gold, found) = (shortened(gold.clone()), shortened(found.clone()));
    let (gold, found) = if is_equation(&found) && !is_equation(&gold) {
        (gold, right_side(found))
    } else if matches!(&gold, Value::Relations(chain) if is_named(chain)) && !is_equation(&found) {
        (right_side(gold), found)
    } else {
        (gold, found)
    };
    if gold == Value::Node(Node::Undefined) {
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
        (Value::Relations(chain), found)
            if found.is_collection() && only_symbol(chain).is_some() && !is_everywhere(chain) =>
        {
            let terms = terms(found);
            RealSet::of(found).is_some_and(|found| {
                (terms == 0 || (terms == 1 && found.has_gaps())) && found.is_where(chain)
            })
        }
        // A relation in braces is a set of one.
        (Value::Relations(chain), Value::Set(_)) | (Value::Set(_), Value::Relations(chain))
            if is_without_symbols(chain) =>
        {
            false
        }
        (Value::Relations(_), Value::Set(found)) => {
            in_any_order(std::slice::from_ref(&gold), found)
        }
        (Value::Set(gold), Value::Relations(_)) => in_any_order(gold, std::slice::from_ref(&found)),
        // A set may not be answered by inequalities.
        (_, Value::Relations(_)) => false,
        _ if gold.is_collection() || found.is_collection() => same_collection(&gold, &found),
        (Value::Node(gold), Value::Node(found)) => same_node(gold, found),
        _ => false,
    }
}

/// Shortens a chain of equations that begins with a name to the name and the last side.
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

fn is_named(chain: &[Link]) -> bool {
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

fn right_side(value: Value) -> Value {
    match value {
        Value::Relations(mut chain) => {
            chain.pop().map_or(Value::Relations(chain), |(_, _, right)| right)
        }
        value => value,
    }
}

fn is_without_symbols(chain: &[Link]) -> bool {
    let constant = |value: &Value| value.node().is_some_and(is_constant);
    chain.iter().all(|(left, _, right)| constant(left) && constant(right))
}

/// Whether every link is a comparison with infinity, which leaves no relation to the reference.
fn is_everywhere(chain: &[Link]) -> bool {
    chain.iter().all(|(left, _, right)| is_infinite(left) || is_infinite(right))
}

fn is_infinite(value: &Value) -> bool {
    value.node().is_some_and(Node::is_infinite)
}

fn same_relation((gold_left, gold, gold_right): &Link, (left, found, right): &Link) -> bool {
    let nodes = || Some((gold_left.node()?, gold_right.node()?, left.node()?, right.node()?));
    let Some((gold_left, gold_right, left, right)) = nodes() else {
        // Sets have no difference, so they have to be written alike.
        return gold == found && alike(gold_left, left) && alike(gold_right, right);
    };
    let difference = |left: &Node, right: &Node| left.clone().plus(right.clone().negative());
    let expected = difference(gold_left, gold_right);
    (gold == found && same_node(&expected, &difference(left, right)))
        || (gold.flipped() == *found && same_node(&expected, &difference(right, left)))
        || (*gold == Relation::Equal
            && *found == Relation::Equal
            && proportional(&expected, &difference(left, right)))
}

/// Whether two values are written alike, but for the order in sets, unions and intersections, and for the two
/// ways to write all real numbers.
fn alike(gold: &Value, found: &Value) -> bool {
    match (gold, found) {
        (Value::Set(gold), Value::Set(found)) => {
            let (gold, found) = (once(gold), once(found));
            gold.len() == found.len()
                && gold.iter().all(|gold| found.iter().any(|found| alike(gold, found)))
        }
        (Value::Union(first, second), Value::Union(left, right)) => {
            (alike(first, left) && alike(second, right))
                || (alike(first, right) && alike(second, left))
        }
        // An intersection keeps one of equal sets.
        (Value::Intersection(first, second), Value::Intersection(left, right)) => {
            let each = |one: [&Value; 2], other: [&Value; 2]| {
                one.iter().all(|one| other.iter().any(|other| alike(one, other)))
            };
            each([first, second], [left, right]) && each([left, right], [first, second])
        }
        (Value::Without(first, second), Value::Without(left, right)) => {
            alike(first, left) && alike(second, right)
        }
        _ => gold == found || (is_real_line(gold) && is_real_line(found)),
    }
}

fn is_real_line(value: &Value) -> bool {
    match value {
        Value::Named(name) => *name == 'R',
        Value::Interval { start, end, .. } => {
            start.is_infinite() && end.is_infinite() && start != end
        }
        _ => false,
    }
}

/// Whether one side is a constant times the other: the same solutions. Equations of a single symbol are not compared
/// so: `2x = 10` is not `x = 5`.
fn proportional(gold: &Node, found: &Node) -> bool {
    let symbols = gold.symbols();
    if symbols.len() < 2 || symbols != found.symbols() {
        return false;
    }
    let ratio = |point| Some(at(gold, point)? / at(found, point)?);
    let ratios: Vec<_> = (0..POINTS)
        .filter_map(ratio)
        .filter(|ratio| ratio.re.is_finite() && ratio.norm() > NEAR)
        .collect();
    let Some(first) = ratios.first() else { return false };
    let mut far = (POINTS..ALL_POINTS).filter_map(ratio).filter(|far| far.norm().is_finite());
    ratios.len() > ENOUGH as usize
        && ratios.iter().all(|ratio| (ratio - first).norm() <= NEAR * first.norm())
        && far.all(|ratio| (ratio - first).norm() <= FAR * first.norm())
}

fn same_collection(gold: &Value, found: &Value) -> bool {
    if let (
        Value::Interval { start: gold_start, end: gold_end, open: gold_open },
        Value::Interval { start, end, open },
    ) = (gold, found)
    {
        return gold_open == open && same_node(gold_start, start) && same_node(gold_end, end);
    }
    // Points are compared one by one below, more finely than ends.
    let points = |value: &Value| matches!(value, Value::Set(_) | Value::Node(_));
    let both_sets = ![gold, found].iter().any(|value| matches!(value, Value::Tuple(_)));
    if both_sets && !(points(gold) && points(found)) {
        let same = || RealSet::of(gold).zip(RealSet::of(found)).is_some_and(|(l, r)| l.is_near(&r));
        if alike(gold, found) || (is_worked_out(gold, found) && same()) {
            return true;
        }
    }
    let elements = |value: &Value| match value {
        Value::Tuple(elements) => Some(elements.clone()),
        Value::Set(elements) => Some(once(elements)),
        Value::Interval { .. } => pair(value).map(Vec::from),
        Value::Node(_) => Some(vec![value.clone()]),
        _ => None,
    };
    let Some((ours, theirs)) = elements(gold).zip(elements(found)) else { return false };
    match (gold, found) {
        (Value::Tuple(_) | Value::Interval { .. }, Value::Tuple(_) | Value::Interval { .. }) => {
            in_order(&ours, &theirs)
        }
        // A tuple or an interval may stand for a set that is written without a value twice.
        (Value::Tuple(_) | Value::Interval { .. }, Value::Set(written)) => {
            written.len() == theirs.len() && in_order(&ours, &theirs)
        }
        // The real line is not its ends.
        (Value::Set(_), Value::Interval { .. }) => {
            !is_real_line(found) && in_any_order(&ours, &theirs)
        }
        (Value::Set(_), Value::Tuple(ends)) if ends.len() == 2 && ends.iter().all(is_infinite) => {
            false
        }
        (Value::Set(_), _) | (Value::Node(_), Value::Set(_)) => in_any_order(&ours, &theirs),
        _ => false,
    }
}

/// The number of intersections and differences in a set. The reference keeps them as they are written: it evaluates one
/// of them beside a union, and never several.
fn terms(value: &Value) -> u32 {
    match value {
        Value::Union(first, second) => terms(first) + terms(second),
        Value::Intersection(first, second) | Value::Without(first, second) => {
            1 + terms(first) + terms(second)
        }
        _ => 0,
    }
}

fn is_worked_out(gold: &Value, found: &Value) -> bool {
    let is_union = |value: &Value| matches!(value, Value::Union(..));
    match (terms(gold), terms(found)) {
        (0, 0) => true,
        (0, 1) => is_union(gold),
        (1, 0) => is_union(found),
        _ => false,
    }
}

/// `(1,2)` was read as an interval and may be meant as a point, or as two answers: if it is known to be open,
/// which asks for ends that are real numbers whatever their symbols are.
fn pair(value: &Value) -> Option<[Value; 2]> {
    let is_real = |node: &Node| {
        !node.any(&mut |node| match node {
            Node::Power(base, exponent) => {
                !is_constant(base)
                    && exact(exponent).is_none_or(|exponent| {
                        !exponent.is_integer() || num_traits::Signed::is_negative(&exponent)
                    })
            }
            Node::Function { name, .. } => name == "log" || name.starts_with("of "),
            _ => false,
        })
    };
    match value {
        Value::Interval { start, end, open: (true, true) } if is_real(start) && is_real(end) => {
            Some([start, end].map(|end| Value::Node(end.clone())))
        }
        _ => None,
    }
}

fn in_order(gold: &[Value], found: &[Value]) -> bool {
    gold.len() == found.len() && gold.iter().zip(found).all(|(gold, found)| equal(gold, found))
}

/// Whether each gold element has a found one of its own.
fn in_any_order(gold: &[Value], found: &[Value]) -> bool {
    let mut found: Vec<&Value> = found.iter().collect();
    gold.len() == found.len()
        && gold.len() <= MOST_ELEMENTS
        && gold.iter().all(|gold| {
            let place = found.iter().position(|found| equal(gold, found));
            place.is_some_and(|place| {
                found.remove(place);
                true
            })
        })
}

/// Each value once: what a set is, and a tuple is not.
fn once(values: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for value in values {
        if kept.len() > MOST_ELEMENTS || !kept.contains(value) {
            kept.push(value.clone());
        }
    }
    kept
}
