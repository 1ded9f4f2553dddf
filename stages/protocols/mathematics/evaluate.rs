//! Numbers put in for symbols: an expression as a complex double at a fixed point.
//!
//! Two expressions that agree at every point are taken as the same, which is what an identity test by
//! random points does (Schwartz 1980, Zippel 1979), with points that follow from the symbols' names. Real
//! points of either sign, since answers are about real symbols. Not here: exact arithmetic of roots.

use num_complex::Complex64;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

use super::value::{Constant, Node, nearest};
use crate::expression::raise;

/// Points at which expressions are compared.
pub(super) const POINTS: u32 = 6;

/// A factorial beyond this is no number.
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

/// Whether no symbol and no unknown function occurs.
pub(super) fn is_constant(node: &Node) -> bool {
    match node {
        Node::Symbol { .. } | Node::Matrix(_) => false,
        Node::Number(_) | Node::Float(_) | Node::Constant(_) | Node::Undefined => true,
        Node::Percent(inside) => is_constant(inside),
        Node::Sum(nodes) | Node::Product(nodes) => nodes.iter().all(is_constant),
        Node::Power(base, exponent) => is_constant(base) && is_constant(exponent),
        Node::Function { arguments, .. } => arguments.iter().all(is_constant),
    }
}

/// The value where it is an exact fraction.
pub(super) fn exact(node: &Node) -> Option<BigRational> {
    let bounded = |value: BigRational| {
        (value.numer().bits().max(value.denom().bits()) <= 20_000).then_some(value)
    };
    match node {
        Node::Number(value) => Some(value.clone()),
        Node::Percent(inside) => Some(exact(inside)? / BigRational::from_integer(100.into())),
        Node::Sum(nodes) => {
            nodes.iter().try_fold(BigRational::zero(), |sum, node| bounded(sum + exact(node)?))
        }
        Node::Product(nodes) => nodes
            .iter()
            .try_fold(BigRational::one(), |product, node| bounded(product * exact(node)?)),
        Node::Power(base, exponent) => {
            let exponent = exact(exponent).filter(BigRational::is_integer)?;
            raise(&exact(base)?, exponent.numer())
        }
        Node::Function { name, arguments } if name == "factorial" => {
            let value = exact(arguments.first()?)?.to_u32().filter(|n| *n <= LARGEST_FACTORIAL)?;
            let same =
                arguments.first().and_then(exact)? == BigRational::from_integer(value.into());
            let product = (1..=value).fold(BigRational::one(), |product, factor| {
                product * BigRational::from_integer(factor.into())
            });
            same.then_some(product)
        }
        _ => None,
    }
}

/// The value at one of the points; `None` where it has none.
pub(super) fn at(node: &Node, point: u32) -> Option<Complex64> {
    let real = |value: f64| Complex64::new(value, 0.0);
    let value = match node {
        Node::Number(value) => real(nearest(value)),
        Node::Float(value) => real(*value),
        Node::Symbol { name, complex } => real(coordinate(name, *complex, point)),
        Node::Constant(Constant::Pi) => real(std::f64::consts::PI),
        Node::Constant(Constant::Euler) => real(std::f64::consts::E),
        Node::Constant(Constant::Imaginary) => Complex64::i(),
        Node::Constant(Constant::Infinity) | Node::Undefined | Node::Matrix(_) => return None,
        Node::Percent(inside) => at(inside, point)? / 100.0,
        Node::Sum(nodes) => nodes.iter().map(|node| at(node, point)).sum::<Option<_>>()?,
        Node::Product(nodes) => nodes.iter().map(|node| at(node, point)).product::<Option<_>>()?,
        Node::Power(base, exponent) => power(at(base, point)?, at(exponent, point)?),
        Node::Function { name, arguments } => {
            let arguments: Option<Vec<Complex64>> =
                arguments.iter().map(|argument| at(argument, point)).collect();
            function(name, &arguments?)?
        }
    };
    (value.re.is_finite() && value.im.is_finite()).then_some(value)
}

/// A power; whole ones by multiplication, so that signs stay exact.
fn power(base: Complex64, exponent: Complex64) -> Complex64 {
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

fn function(name: &str, arguments: &[Complex64]) -> Option<Complex64> {
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
        "factorial" => return real(factorial(as_real(first)?)?),
        "binom" => {
            let (n, k) = (as_real(first)?, as_real(*arguments.get(1)?)?);
            return real(factorial(n)? / (factorial(k)? * factorial(n - k)?));
        }
        "mod" => {
            let (value, modulus) = (as_real(first)?, as_real(*arguments.get(1)?)?);
            return real(value - modulus * (value / modulus).floor());
        }
        "max" | "min" | "gcd" | "lcm" => {
            let values: Option<Vec<f64>> = arguments.iter().map(|value| as_real(*value)).collect();
            return real(values?.into_iter().reduce(joined(name))?);
        }
        // Unknown: some smooth function of its own.
        _ => {
            let mut phase = Complex64::new(coordinate(name, false, 0), 0.0);
            for (place, argument) in (1u8..).zip(arguments) {
                phase += *argument / (1.0 + f64::from(place));
            }
            phase.sin()
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

/// Next to a whole number, that number: a root of a square must not fall below it.
fn rounded(value: f64) -> f64 {
    if (value - value.round()).abs() < 1e-9 { value.round() } else { value }
}

fn factorial(value: f64) -> Option<f64> {
    let whole = value.round();
    let n = whole.to_u32().filter(|n| *n <= LARGEST_FACTORIAL && (value - whole).abs() < 1e-9)?;
    Some((1..=n).map(f64::from).product())
}

/// What a symbol stands for at a point: between -4 and 4, by a hash of its name (FNV-1a).
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
    8.0 * share - 4.0
}
