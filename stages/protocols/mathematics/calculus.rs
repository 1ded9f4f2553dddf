//! Derivatives and antiderivatives by rule; sums, products, limits and integrals as numbers.
//!
//! A finite sum is added up. An endless one, and a limit, is extrapolated (Richardson 1911) from places that
//! halve their distance, and an integral is taken by Takahasi and Mori's rule (1974); either counts only where
//! the last two results agree to eleven digits. A sum up to a symbol counts where it is a polynomial of it.
//! `None` stands for all that does not settle, or costs more than a scope allows.

use num_complex::Complex64;
use num_traits::{One, ToPrimitive};

use super::evaluate::{Scope, exact, real_in, value};
use super::value::{Constant, Kind, Node};

/// Terms of a finite sum.
const MOST_TERMS: i64 = 10_000;

/// Parts of an expression that is derived.
const LARGEST: usize = 150;

/// What the last two results may differ by.
const SETTLED: f64 = 1e-11;

/// Of what is bound, the value in a scope.
pub(super) fn bound(
    (kind, name, body): (Kind, &str, &Node),
    (from, to): (&Node, &Node),
    scope: &Scope<'_>,
) -> Option<Complex64> {
    let at = |place: f64| value(body, &scope.with(name, place));
    let from = real_in(from, scope)?;
    let to = real_in(to, scope)?;
    match kind {
        Kind::Limit if from.is_infinite() => {
            settled((3..14).map(|k| at(from.signum() * 2f64.powi(k))))
        }
        Kind::Limit => settled((3..14).map(|k| at(from + to * 2f64.powi(-k)))),
        Kind::Integral => integral(at, from, to),
        Kind::Sum | Kind::Product => {
            let first = whole(from)?;
            let add = kind == Kind::Sum;
            let join = |all: Complex64, term: Complex64| if add { all + term } else { all * term };
            let start = Complex64::new(if add { 0.0 } else { 1.0 }, 0.0);
            if to == f64::INFINITY {
                return endless(at, first, start, join);
            }
            match whole(to) {
                Some(last) if (-1..MOST_TERMS).contains(&(last - first)) => (first..=last)
                    .try_fold(start, |all, place| Some(join(all, at(place.to_f64()?)?))),
                None if add => polynomial(at, first, to),
                _ => None,
            }
        }
    }
}

fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0).then(|| value.to_i64()).flatten()
}

/// Partial sums after 8, 16, ... terms.
fn endless(
    at: impl Fn(f64) -> Option<Complex64>,
    first: i64,
    start: Complex64,
    join: impl Fn(Complex64, Complex64) -> Complex64,
) -> Option<Complex64> {
    let (mut all, mut next, mut sums) = (start, first, Vec::new());
    for power in 3..13 {
        while next < first + (1 << power) {
            // A term that is no number any more, as of a factorial, is beyond what counts.
            let term = at(next.to_f64()?);
            match term {
                Some(term) => all = join(all, term),
                None if power > 5 => return settled(sums.into_iter()),
                None => return None,
            }
            next += 1;
        }
        sums.push(Some(all));
    }
    settled(sums.into_iter())
}

/// Extrapolates results at distances that halve each time.
fn settled(results: impl Iterator<Item = Option<Complex64>>) -> Option<Complex64> {
    let mut row: Vec<Complex64> = Vec::new();
    let mut best: Option<(f64, Complex64)> = None;
    for result in results {
        let mut next = vec![result?];
        for (order, before) in (1i32..).zip(&row) {
            let last = *next.last()?;
            next.push(last + (last - before) / (2f64.powi(order) - 1.0));
        }
        for pair in next.windows(2) {
            let error = (pair[1] - pair[0]).norm() / pair[1].norm().max(1.0);
            if best.is_none_or(|(least, _)| error < least) {
                best = Some((error, pair[1]));
            }
        }
        row = next;
    }
    best.filter(|(error, _)| *error <= SETTLED).map(|(_, value)| value)
}

/// The sum up to a place between whole numbers, if sums are a polynomial of where they end.
fn polynomial(at: impl Fn(f64) -> Option<Complex64>, first: i64, to: f64) -> Option<Complex64> {
    const ORDERS: i64 = 12;
    let mut sums = vec![Complex64::new(0.0, 0.0)];
    for place in first..first + ORDERS {
        sums.push(sums.last()? + at(place.to_f64()?)?);
    }
    let size = sums.iter().map(|sum| sum.norm()).fold(1.0, f64::max);
    let steps = to - (first - 1).to_f64()?;
    let (mut value, mut factor) = (Complex64::new(0.0, 0.0), 1.0);
    for order in 0..=ORDERS {
        let leading = *sums.first()?;
        // The last differences have to vanish, or it is no polynomial.
        if order > ORDERS - 3 && leading.norm() > SETTLED * size {
            return None;
        }
        value += leading * factor;
        let order = order.to_f64()?;
        factor *= (steps - order) / (order + 1.0);
        sums = sums.windows(2).map(|pair| pair[1] - pair[0]).collect();
    }
    Some(value)
}

/// With both ends drawn out by the double exponential; infinite ends by a quotient before that.
fn integral(at: impl Fn(f64) -> Option<Complex64>, from: f64, to: f64) -> Option<Complex64> {
    let place = |t: f64| -> (f64, f64) {
        if from.is_finite() && to.is_finite() {
            return (f64::midpoint(from, to) + t * (to - from) / 2.0, (to - from) / 2.0);
        }
        let square = 1.0 - t * t;
        match (from.is_finite(), to.is_finite()) {
            (true, false) => (from + (1.0 + t) / (1.0 - t), 2.0 / (1.0 - t).powi(2)),
            (false, true) => (to - (1.0 - t) / (1.0 + t), 2.0 / (1.0 + t).powi(2)),
            _ => (t / square, (1.0 + t * t) / (square * square)),
        }
    };
    if (from.is_infinite() && from > 0.0) || (to.is_infinite() && to < 0.0) {
        return None;
    }
    let rule = |steps: i32| -> Option<Complex64> {
        let width = 3.4 / f64::from(steps);
        let mut sum = Complex64::new(0.0, 0.0);
        for step in -steps..=steps {
            let u = f64::from(step) * width;
            let inner = std::f64::consts::FRAC_PI_2 * u.sinh();
            let t = inner.tanh();
            if t.abs() >= 1.0 {
                continue;
            }
            let weight = std::f64::consts::FRAC_PI_2 * u.cosh() / inner.cosh().powi(2);
            let (x, scale) = place(t);
            // Far out, what is smaller than doubles has no value.
            let endless = from.is_infinite() || to.is_infinite();
            let Some(value) = at(x) else {
                if endless && x.abs() > 20.0 { continue } else { return None }
            };
            let term = value * (scale * weight * width);
            if term.re.is_finite() && term.im.is_finite() {
                sum += term;
            }
        }
        Some(sum)
    };
    let (rough, fine) = (rule(60)?, rule(120)?);
    ((rough - fine).norm() <= SETTLED * fine.norm().max(1.0)).then_some(fine)
}

/// By a symbol's name; `None` for functions that are not here, and for what grows beyond bounds.
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
            let less = exponent.as_ref().clone().plus(Node::whole(-1));
            let by_base = exponent
                .as_ref()
                .clone()
                .times(base.as_ref().clone().raised_to(less))
                .times(derivative(base, name)?);
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

/// By a symbol's name, without a constant: powers, and a few functions of the bare symbol.
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
