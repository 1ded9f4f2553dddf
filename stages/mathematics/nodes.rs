//! Whether two expressions are equal.
//!
//! Exact fractions are compared exactly, a lone decimal to six places, words letter by letter, matrices cell
//! by cell, and all else by its values at fixed points (see `evaluate.rs`). A decimal inside an expression is
//! a double, as it is to math_verify: whole numbers equal it only if it is that number to the last bit.

use num_rational::BigRational;

use super::evaluate::{ALL_POINTS, POINTS, STEP_POINTS, at, exact, is_constant};
use super::value::{Constant, Node, nearest};

/// The largest difference between doubles of equal expressions.
pub(super) const NEAR: f64 = 1e-9;

/// The same far from zero.
pub(super) const FAR: f64 = 1e-6;

/// The same if only rounding may make a difference.
const FINE: f64 = 1e-12;

/// Points at which both sides must have a value.
pub(super) const ENOUGH: u32 = 2;

pub(super) fn same_node(gold: &Node, found: &Node) -> bool {
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
    if decimal(gold).or_else(|| decimal(found)).is_some() {
        return same_decimals(gold, found);
    }
    if let Some((gold, found)) = exact(gold).zip(exact(found)) {
        return gold == found;
    }
    if gold.is_infinite() || found.is_infinite() {
        let values = super::evaluate::real(gold).zip(super::evaluate::real(found));
        return values.is_some_and(|(gold, found)| gold == found);
    }
    if let Some((number, other)) =
        exact(gold).zip(Some(found)).or_else(|| exact(found).zip(Some(gold)))
        && is_constant(other)
    {
        return comes_to(other, &number);
    }
    !is_beyond_proof(gold, found) && same_values(gold, found)
}

/// Whether an expression without symbols, which is no fraction, has this value.
fn comes_to(node: &Node, number: &BigRational) -> bool {
    let Some(value) = at(node, 0) else { return false };
    let expected = nearest(number);
    if !has_decimal(node) {
        let is_approximated = node.any(&mut |node| matches!(node, Node::Bound { .. }));
        let near = if is_approximated { NEAR } else { FINE };
        let size = value.norm().max(expected.abs());
        // Next to zero, terms that cancel leave a rounding error.
        let least = if expected == 0.0 { 1e-14 } else { 0.0 };
        return size.is_finite() && (value - expected).norm() <= (near * size).max(least);
    }
    // A decimal is a double, which is a whole number or not.
    let found = BigRational::from_float(value.re).filter(|_| value.im == 0.0);
    if number.is_integer() {
        found.as_ref() == Some(number)
    } else {
        value.re == expected && value.im == 0.0
    }
}

/// Compares if one side is a lone decimal: to six places, but a whole number exactly.
fn same_decimals(gold: &Node, found: &Node) -> bool {
    if let Some((gold, found)) = decimal(gold).zip(decimal(found))
        && gold == found
    {
        return true;
    }
    let whole = |node: &Node| {
        if has_decimal(node) {
            return None;
        }
        let value = exact(node).filter(BigRational::is_integer);
        value.or_else(|| {
            let value = super::evaluate::real(node)?;
            let is_whole = (value - value.round()).abs() <= FINE * value.abs().max(1.0);
            BigRational::from_float(value.round()).filter(|_| is_whole)
        })
    };
    match (whole(gold), whole(found)) {
        (Some(number), _) => decimal(found).is_some_and(|found| found == number),
        (_, Some(number)) => decimal(gold).is_some_and(|gold| gold == number),
        _ => rounded(gold).zip(rounded(found)).is_some_and(|(gold, found)| gold == found),
    }
}

/// Identities that hold for real numbers and that no simplification finds: the root of a square that is
/// written as a sum, and the absolute value that goes with it; and a root by a decimal exponent.
fn is_beyond_proof(gold: &Node, found: &Node) -> bool {
    let absolute = |node: &Node| node.any(&mut |node| applies(&["abs"], node));
    let is_root = |node: &Node| {
        matches!(node, Node::Power(base, exponent) if !is_constant(base)
            && exact(exponent).is_some_and(|exponent| !exponent.is_integer()))
    };
    let is_root_of_sum = |node: &Node| {
        matches!(node, Node::Power(base, _) if matches!(**base, Node::Sum(_))) && is_root(node)
    };
    let rooted = |node: &Node| node.any(&mut |node| is_root(node) && !is_root_of_sum(node));
    let lone_root = |node: &Node| match node {
        Node::Product(factors) => {
            factors.iter().filter(|factor| !is_constant(factor)).count() == 1
                && factors.iter().any(is_root_of_sum)
        }
        node => is_root_of_sum(node),
    };
    let by_decimal = |node: &Node| {
        is_constant(node)
            && node
                .any(&mut |node| matches!(node, Node::Power(_, exponent) if has_decimal(exponent)))
    };
    [(gold, found), (found, gold)].into_iter().any(|(one, other)| {
        (absolute(one) && !absolute(other) && !rooted(other))
            || (lone_root(one) && !other.any(&mut |node| is_root(node)))
            || (by_decimal(one) && !has_decimal(other))
    })
}

/// Whether one of these functions is applied to a symbol.
fn applies(functions: &[&str], node: &Node) -> bool {
    matches!(node, Node::Function { name, arguments }
        if functions.contains(&name.as_str()) && !arguments.iter().all(is_constant))
}

fn same_values(gold: &Node, found: &Node) -> bool {
    // Symbols that fall away, as in `x - x`, are seen at the points below.
    if is_constant(gold) != is_constant(found) && (0..ENOUGH).any(|point| at(gold, point).is_none())
    {
        return false;
    }
    let near = if has_decimal(gold) || has_decimal(found) { FINE } else { NEAR };
    let mut seen = 0;
    for point in 0..POINTS {
        let (Some(gold), Some(found)) = (at(gold, point), at(found, point)) else { continue };
        let size = gold.norm().max(found.norm()).max(1e-6);
        if (gold - found).norm() > near * size {
            return false;
        }
        seen += 1;
    }
    if is_flat(gold) && is_flat(found) {
        return same_terms(gold, found);
    }
    // Functions that jump at whole numbers differ there, if at all.
    let mut is_step = |node: &Node| applies(&["floor", "ceil"], node);
    if gold.any(&mut is_step) || found.any(&mut is_step) {
        let differ = |point: u32| {
            let values = at(gold, point).zip(at(found, point));
            values.is_some_and(|(gold, found)| (gold - found).norm() > near * gold.norm().max(1.0))
        };
        if (ALL_POINTS..STEP_POINTS).any(differ) {
            return false;
        }
    }
    // Far from zero, where a small constant does not hide what stands beside it, and doubles are coarser.
    seen >= ENOUGH
        && (POINTS..ALL_POINTS).all(|point| {
            let Some((gold, found)) = at(gold, point).zip(at(found, point)) else { return true };
            (gold - found).norm() <= FAR * gold.norm().max(found.norm()).max(1e-6)
        })
}

/// Whether symbols occur without an effect on the value, as beside a constant that dwarfs them.
fn is_flat(node: &Node) -> bool {
    let values: Vec<_> = (0..POINTS).filter_map(|point| at(node, point)).collect();
    let flat = |value: &num_complex::Complex64| (value - values[0]).norm() <= FINE * value.norm();
    !is_constant(node) && matches!(node, Node::Sum(_)) && values.iter().all(flat)
}

/// Compares constant terms and the other terms separately.
fn same_terms(gold: &Node, found: &Node) -> bool {
    let parted = |node: &Node| {
        let terms = match node {
            Node::Sum(terms) => terms.clone(),
            node => vec![node.clone()],
        };
        let (constant, others): (Vec<_>, Vec<_>) = terms.into_iter().partition(is_constant);
        (Node::Sum(constant), Node::Sum(others))
    };
    let (gold, found) = (parted(gold), parted(found));
    same_values(&gold.0, &found.0) && !is_flat(&gold.1) && same_values(&gold.1, &found.1)
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

/// A fraction as a text, to be compared with the inside of a `\text{…}`.
fn digits(node: &Node) -> Option<String> {
    match node {
        Node::Number(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The value of a lone decimal, perhaps with a percent sign: as written if a double has fewer digits.
fn decimal(node: &Node) -> Option<BigRational> {
    match node {
        Node::Float(value) => BigRational::from_float(*value),
        Node::Long(value) => Some(value.clone()),
        Node::Percent(inside) => match **inside {
            Node::Float(value) => BigRational::from_float(value / 100.0),
            _ => None,
        },
        _ => None,
    }
}

fn has_decimal(node: &Node) -> bool {
    node.any(&mut |node| matches!(node, Node::Float(_) | Node::Long(_)))
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
                let add = |(left, right): (Vec<Node>, Vec<Node>)| {
                    left.into_iter().zip(right).map(|(l, r)| l.plus(r)).collect()
                };
                fits.then(|| sum.into_iter().zip(next).map(add).collect())
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
