//! Derivatives and antiderivatives by rule, as expressions.
//!
//! Elementary rules only: `None` for a function without a rule, for matrices, and for results larger than [`LARGEST`].
//! Sums, limits and definite integrals are taken as numbers, see `numerical.rs`.

use num_traits::One;

use super::evaluate::exact;
use super::value::{Constant, Node};

/// The most parts of an expression that is differentiated.
const LARGEST: usize = 150;

/// The derivative by a symbol's name; `None` for functions without a rule, and for results that are too large.
pub(super) fn derivative(node: &Node, name: &str) -> Option<Node> {
    if node.size() > LARGEST {
        return None;
    }
    if !node.symbols().contains(name) {
        let known = !node.any(&mut |node| matches!(node, Node::Matrix(_) | Node::Undefined));
        return known.then(|| Node::whole(0));
    }
    let one = || Node::whole(1);
    let squared = |node: &Node| node.clone().raised_to(Node::whole(2));
    Some(match node {
        Node::Symbol { .. } => one(),
        Node::Percent(inside) => derivative(inside, name)?.percent(),
        Node::Sum(nodes) => {
            Node::Sum(nodes.iter().map(|node| derivative(node, name)).collect::<Option<_>>()?)
        }
        Node::Product(factors) => {
            let term = |place: usize| {
                let mut term = factors.clone();
                term[place] = derivative(&factors[place], name)?;
                Some(Node::Product(term))
            };
            Node::Sum((0..factors.len()).map(term).collect::<Option<_>>()?)
        }
        Node::Power(base, exponent) => {
            let (base, exponent) = (base.as_ref(), exponent.as_ref());
            let power = base.clone().raised_to(exponent.clone().plus(Node::whole(-1)));
            let by_base = exponent.clone().times(power).times(derivative(base, name)?);
            if !exponent.symbols().contains(name) {
                return Some(by_base);
            }
            let grows = node.clone().times(logarithm(base)).times(derivative(exponent, name)?);
            if base.symbols().contains(name) { by_base.plus(grows) } else { grows }
        }
        Node::Function { name: function, arguments } => {
            let x = arguments.first()?;
            let of = |function: &str| Node::function(function, vec![x.clone()]);
            let inverse_root = |sign: i32, node: Node| {
                Node::whole(sign).times(node.raised_to(Node::whole(-1).over(Node::whole(2))))
            };
            let outer = match function.as_str() {
                "sin" => of("cos"),
                "cos" => of("sin").negative(),
                "tan" => squared(&of("sec")),
                "cot" => squared(&of("csc")).negative(),
                "sec" => of("sec").times(of("tan")),
                "csc" => of("csc").times(of("cot")).negative(),
                "arcsin" => inverse_root(1, one().plus(squared(x).negative())),
                "arccos" => inverse_root(-1, one().plus(squared(x).negative())),
                "arctan" => one().plus(squared(x)).raised_to(Node::whole(-1)),
                "sinh" => of("cosh"),
                "cosh" => of("sinh"),
                "log" if !arguments.get(1)?.symbols().contains(name) => {
                    x.clone().times(logarithm(arguments.get(1)?)).raised_to(Node::whole(-1))
                }
                _ => return None,
            };
            outer.times(derivative(x, name)?)
        }
        _ => return None,
    })
}

fn logarithm(node: &Node) -> Node {
    Node::function("log", vec![node.clone(), Node::Constant(Constant::Euler)])
}

/// The antiderivative by a symbol's name, without a constant, of powers and of a few functions of the bare symbol.
pub(super) fn antiderivative(node: &Node, name: &str) -> Option<Node> {
    let x = || Node::Symbol { name: name.to_owned(), complex: false };
    let is_x = |node: &Node| matches!(node, Node::Symbol { name: found, .. } if found == name);
    if !node.symbols().contains(name) {
        return Some(node.clone().times(x()));
    }
    match node {
        node if is_x(node) => Some(x().times(x()).over(Node::whole(2))),
        Node::Sum(nodes) => Some(Node::Sum(
            nodes.iter().map(|node| antiderivative(node, name)).collect::<Option<_>>()?,
        )),
        Node::Product(factors) => {
            let (free, rest): (Vec<_>, Vec<_>) =
                factors.iter().cloned().partition(|factor| !factor.symbols().contains(name));
            let [only] = rest.as_slice() else { return None };
            Some(Node::Product(free).times(antiderivative(only, name)?))
        }
        Node::Power(base, exponent) if is_x(base) => {
            let exponent = exact(exponent)?;
            if exponent == -num_rational::BigRational::one() {
                return Some(logarithm(&x()));
            }
            let more = Node::Number(exponent + num_rational::BigRational::one());
            Some(x().raised_to(more.clone()).over(more))
        }
        Node::Power(base, exponent)
            if is_x(exponent) && **base == Node::Constant(Constant::Euler) =>
        {
            Some(node.clone())
        }
        Node::Function { name: function, arguments } if arguments.first().is_some_and(is_x) => {
            let of = |function: &str| Node::function(function, vec![x()]);
            match function.as_str() {
                "sin" => Some(of("cos").negative()),
                "cos" => Some(of("sin")),
                "log" if arguments.get(1) == Some(&Node::Constant(Constant::Euler)) => {
                    Some(x().times(node.clone()).plus(x().negative()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
