//! Evaluates an expression as a complex double at a fixed point, with numbers in place of symbols.
//!
//! Two expressions that agree at every point are taken as the same, which is what an identity test by
//! random points does (Schwartz 1980, Zippel 1979), with points that follow from the symbols' names. Real
//! points of either sign, since answers are about real symbols. Not here: exact arithmetic of roots.

use std::cell::Cell;

use num_complex::Complex64;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

use super::numerical::bound;
use super::value::{Constant, Node, nearest};
use crate::expression::{in_bounds, raise};

/// Points near zero at which expressions are compared.
pub(super) const POINTS: u32 = 6;

/// With the points far from zero.
pub(super) const ALL_POINTS: u32 = 8;

/// With the points at quarters of whole numbers.
pub(super) const STEP_POINTS: u32 = ALL_POINTS + 200;

/// The most nodes visited for one value.
const MAX_STEPS: u32 = 200_000;

/// The factorial of a larger number has no value.
const LARGEST_FACTORIAL: u32 = 170;

/// The value without any symbol, if it is a real number, perhaps infinite.
pub(super) fn real(node: &Node) -> Option<f64> {
    if !is_constant(node) {
        return None;
    }
    if node.is_infinite() {
        let sign = match node {
            Node::Product(factors) => {
                let others = factors.iter().filter(|factor| !factor.is_infinite());
                others.map(|factor| real(factor).unwrap_or(f64::NAN)).product()
            }
            _ => 1.0,
        };
        return Some(f64::INFINITY * sign).filter(|value| !value.is_nan());
    }
    let value = at(node, 0)?;
    (value.im.abs() <= 1e-12 * value.re.abs().max(1.0)).then_some(value.re)
}

/// Whether no symbol occurs but bound ones, no unknown function and no matrix.
pub(super) fn is_constant(node: &Node) -> bool {
    node.symbols().is_empty()
        && !node.any(&mut |node| {
            matches!(node, Node::Function { name, .. } if name.starts_with("of "))
                || matches!(node, Node::Matrix(_))
        })
}

/// The value where it is an exact fraction.
pub(super) fn exact(node: &Node) -> Option<BigRational> {
    match node {
        Node::Number(value) => Some(value.clone()),
        Node::Percent(inside) => Some(exact(inside)? / BigRational::from_integer(100.into())),
        Node::Sum(nodes) => {
            nodes.iter().try_fold(BigRational::zero(), |sum, node| in_bounds(sum + exact(node)?))
        }
        Node::Product(nodes) => nodes
            .iter()
            .try_fold(BigRational::one(), |product, node| in_bounds(product * exact(node)?)),
        Node::Power(base, exponent) => {
            let exponent = exact(exponent).filter(BigRational::is_integer)?;
            raise(&exact(base)?, exponent.numer())
        }
        Node::Function { name, arguments } if name == "factorial" => {
            let argument = exact(arguments.first()?).filter(BigRational::is_integer)?;
            let value = argument.to_u32().filter(|n| *n <= LARGEST_FACTORIAL)?;
            Some((1..=value).map(|factor| BigRational::from_integer(factor.into())).product())
        }
        _ => None,
    }
}

/// The values of symbols: the coordinates of a point, except for those that are bound.
#[derive(Clone, Copy)]
struct Scope<'a> {
    point: u32,
    /// Nodes that may still be visited.
    steps: &'a Cell<u32>,
    bound: Option<(&'a str, Complex64, &'a Self)>,
}

impl<'a> Scope<'a> {
    /// With one more symbol bound.
    fn with(&'a self, name: &'a str, value: f64) -> Self {
        Self { bound: Some((name, Complex64::new(value, 0.0), self)), ..*self }
    }

    fn value(&self, name: &str, complex: bool) -> Complex64 {
        match self.bound {
            Some((bound, value, _)) if bound == name => value,
            Some((_, _, outer)) => outer.value(name, complex),
            None => Complex64::new(coordinate(name, complex, self.point), 0.0),
        }
    }
}

/// The value at one of the points; `None` where it has none.
pub(super) fn at(node: &Node, point: u32) -> Option<Complex64> {
    value(node, &Scope { point, steps: &Cell::new(MAX_STEPS), bound: None })
}

/// The value with one symbol set to `place`.
pub(super) fn with(node: &Node, name: &str, place: f64) -> Option<Complex64> {
    value(node, &Scope { point: 0, steps: &Cell::new(MAX_STEPS), bound: None }.with(name, place))
}

/// A real number in a scope, perhaps infinite.
fn real_in(node: &Node, scope: &Scope<'_>) -> Option<f64> {
    if node.is_infinite() {
        return real(node);
    }
    value(node, scope).filter(|value| value.im.abs() <= 1e-12).map(|value| value.re)
}

fn value(node: &Node, scope: &Scope<'_>) -> Option<Complex64> {
    scope.steps.set(scope.steps.get().checked_sub(1)?);
    let real = |value: f64| Complex64::new(value, 0.0);
    let found = match node {
        Node::Number(value) | Node::Long(value) => real(nearest(value)),
        Node::Float(value) => real(*value),
        Node::Symbol { name, complex } => scope.value(name, *complex),
        Node::Constant(Constant::Pi) => real(std::f64::consts::PI),
        Node::Constant(Constant::Euler) => real(std::f64::consts::E),
        Node::Constant(Constant::Imaginary) => Complex64::i(),
        Node::Constant(Constant::Infinity) | Node::Undefined | Node::Matrix(_) => return None,
        Node::Percent(inside) => value(inside, scope)? / 100.0,
        Node::Sum(nodes) => nodes.iter().map(|node| value(node, scope)).sum::<Option<_>>()?,
        Node::Product(nodes) => {
            nodes.iter().map(|node| value(node, scope)).product::<Option<_>>()?
        }
        Node::Power(base, exponent) if base.is_infinite() => {
            (value(exponent, scope)?.re < 0.0).then_some(real(0.0))?
        }
        Node::Power(base, exponent) => {
            let symbolic = exponent;
            let (base, exponent) = (value(base, scope)?, value(exponent, scope)?);
            if base.norm() == 0.0 && !is_constant(symbolic) {
                return None;
            }
            let power = power(base, exponent);
            // Only zero has a power of zero: a result that is too small for a double has no value.
            (power.norm() != 0.0 || base.norm() == 0.0).then_some(power)?
        }
        Node::Bound { kind, name, body, from, to } => {
            let at = |place| value(body, &scope.with(name, place));
            bound(*kind, at, (real_in(from, scope)?, real_in(to, scope)?))?
        }
        Node::Function { name, arguments } => {
            let arguments: Option<Vec<Complex64>> =
                arguments.iter().map(|argument| value(argument, scope)).collect();
            function(name, &arguments?, scope.point)?
        }
    };
    (found.re.is_finite() && found.im.is_finite()).then_some(found)
}

/// A power; whole ones by multiplication, so that signs stay exact.
fn power(base: Complex64, exponent: Complex64) -> Complex64 {
    // A real number lies on no side of the cut: the sign of its imaginary zero has no meaning.
    let base = if base.im == 0.0 { Complex64::new(base.re, 0.0) } else { base };
    if exponent.im == 0.0
        && exponent.re.fract() == 0.0
        && let Some(whole) = exponent.re.to_i32()
    {
        return base.powi(whole);
    }
    if base.im == 0.0 && base.re >= 0.0 && exponent.im == 0.0 {
        return Complex64::new(base.re.powf(exponent.re), 0.0);
    }
    if exponent.re == 0.5 && exponent.im == 0.0 { base.sqrt() } else { base.powc(exponent) }
}

fn function(name: &str, arguments: &[Complex64], point: u32) -> Option<Complex64> {
    let &first = arguments.first()?;
    let real = |value: f64| Some(Complex64::new(value, 0.0));
    let as_real = |value: Complex64| (value.im.abs() < 1e-12).then_some(value.re);
    Some(match name {
        "sin" => first.sin(),
        "cos" => first.cos(),
        "tan" => first.tan(),
        "csc" => first.sin().inv(),
        "sec" => first.cos().inv(),
        "cot" => first.cos() / first.sin(),
        "arcsin" => first.asin(),
        "arccos" => first.acos(),
        "arctan" => first.atan(),
        "arccsc" => first.inv().asin(),
        "arcsec" => first.inv().acos(),
        "arccot" => first.inv().atan(),
        "sinh" => first.sinh(),
        "cosh" => first.cosh(),
        "tanh" => first.tanh(),
        "arsinh" | "arcsinh" => first.asinh(),
        "arcosh" | "arccosh" => first.acosh(),
        "artanh" | "arctanh" => first.atanh(),
        "exp" => first.exp(),
        "log" => first.ln() / arguments.get(1)?.ln(),
        "abs" => return real(first.norm()),
        "floor" => return real(rounded(as_real(first)?).floor()),
        "ceil" => return real(rounded(as_real(first)?).ceil()),
        "factorial" => factorial(first)?,
        "binom" => {
            let (n, k) = (first, *arguments.get(1)?);
            factorial(n)? / (factorial(k)? * factorial(n - k)?)
        }
        "mod" => {
            let (value, modulus) = (as_real(first)?, as_real(*arguments.get(1)?)?);
            return real(value - modulus * (value / modulus).floor());
        }
        "max" | "min" | "gcd" | "lcm" => {
            let values: Option<Vec<f64>> = arguments.iter().map(|value| as_real(*value)).collect();
            return real(values?.into_iter().reduce(joined(name))?);
        }
        // An unknown function: some smooth function that depends on its name.
        _ => {
            let mut phase = Complex64::new(coordinate(name, false, point), 0.0);
            for (place, argument) in (1u8..).zip(arguments) {
                phase += *argument / (1.0 + f64::from(place));
            }
            phase.sin() * 7.0
        }
    })
}

fn joined(name: &str) -> fn(f64, f64) -> f64 {
    fn gcd(a: f64, b: f64) -> f64 {
        let (mut a, mut b) = (a.abs(), b.abs());
        while b > 0.0 {
            (a, b) = (b, a % b);
        }
        a
    }
    match name {
        "max" => f64::max,
        "min" => f64::min,
        "gcd" => gcd,
        _ => |a, b| (a * b).abs() / gcd(a, b),
    }
}

/// Rounds a value next to a whole number to it: the root of a square must not fall below.
fn rounded(value: f64) -> f64 {
    if (value - value.round()).abs() < 1e-9 { value.round() } else { value }
}

/// The factorial: a product for whole numbers, and between them the gamma function, by which symbols are compared.
fn factorial(value: Complex64) -> Option<Complex64> {
    if value.im.abs() > 1e-12 || value.re.abs() > f64::from(LARGEST_FACTORIAL) {
        return None;
    }
    let whole = value.re.round();
    if (value.re - whole).abs() >= 1e-9 {
        return Some(Complex64::new(gamma(value.re + 1.0), 0.0));
    }
    let product: f64 = (1..=whole.to_u32()?).map(f64::from).product();
    Some(Complex64::new(product, 0.0))
}

/// Lanczos' approximation (1964), with g = 7 and nine terms; good to 15 digits.
fn gamma(value: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    use std::f64::consts::PI;
    if value < 0.5 {
        return PI / ((PI * value).sin() * gamma(1.0 - value));
    }
    let x = value - 1.0;
    let series = (1u8..)
        .zip(&TERMS[1..])
        .fold(TERMS[0], |sum, (place, term)| sum + term / (x + f64::from(place)));
    let t = x + 7.5;
    (2.0 * PI).sqrt() * t.powf(x + 0.5) * (-t).exp() * series
}

/// The value of a symbol at a point: between -4 and 4, or a thousand times that, by a hash of its name (FNV-1a).
fn coordinate(name: &str, complex: bool, point: u32) -> f64 {
    let seed = point.to_le_bytes().into_iter().chain([u8::from(complex)]);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes().chain(seed) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // A last mix: the hash's low bits follow the point too simply.
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let share = (hash >> 32).to_f64().unwrap_or_default() / 4_294_967_296.0;
    if point >= ALL_POINTS {
        return (share * 97.0).floor() / 4.0 - 12.0;
    }
    let scale = if point < POINTS { 4.0 } else { 4000.0 };
    scale * (2.0 * share - 1.0)
}
