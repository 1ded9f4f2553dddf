//! Sums, products, limits and integrals as numbers, of functions from a double to a complex double.
//!
//! A finite sum is added up. An endless one, and a limit, is extrapolated (Richardson 1911) from places that halve
//! their distance, and an integral is taken by Takahasi and Mori's rule (1974); either counts only where the last two
//! results agree to eleven digits. A sum up to a place between whole numbers counts where it is a polynomial of its
//! end. `None` means that the results do not settle. Knows no expressions: `evaluate` does.

use num_complex::Complex64;
use num_traits::ToPrimitive;

use super::value::Kind;

/// The most terms of a finite sum.
const MOST_TERMS: i64 = 10_000;

/// The largest difference between the last two results.
const SETTLED: f64 = 1e-11;

/// The value of a sum, product, limit or integral, given the body's value at each place and both ends of the name.
pub(super) fn bound(
    kind: Kind,
    at: impl Fn(f64) -> Option<Complex64>,
    (from, to): (f64, f64),
) -> Option<Complex64> {
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
            // A term that is no longer a number, as of a factorial, is too late to count.
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
            // Far out, a result that is too small for a double has no value.
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
