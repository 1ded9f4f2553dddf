//! Numbers side by side: sums of a fixed number of lanes, and elementary functions that the compiler turns into vector
//! instructions. Nothing here depends on how wide they are.
//!
//! A loop over an array of [`LANES`] numbers is one AVX-512 instruction or two of AVX2: the same operations on the same
//! numbers. `mul_add` is rounded once everywhere. Hot loops are plain `for` loops: an iterator's own functions are compiled
//! for every processor, and a closure that is compiled for more cannot be a part of them.

/// Calls a function that is compiled for AVX2 and FMA.
macro_rules! vectorised {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let missing = $crate::missing_instructions();
        assert_eq!(missing, None, "what the processor lacks of AVX2 and FMA");
        #[expect(unsafe_code, reason = "a function that is compiled for more than every x86-64 processor")]
        // SAFETY: the processor has what the function is compiled for.
        unsafe {
            $function($($argument),*)
        }
    }};
}
pub(super) use vectorised;

/// Which of the instructions that the kernels are compiled for this processor lacks. Commands ask before they compute:
/// a kernel panics without them.
pub fn missing_instructions() -> Option<&'static str> {
    missing(is_x86_feature_detected!("avx2"), is_x86_feature_detected!("fma"))
}

const fn missing(has_avx2: bool, has_fma: bool) -> Option<&'static str> {
    match (has_avx2, has_fma) {
        (true, true) => None,
        (false, true) => Some("AVX2"),
        (true, false) => Some("FMA"),
        (false, false) => Some("AVX2 and FMA"),
    }
}

/// Sums are kept in so many parts: number n belongs to part n mod LANES.
pub(super) const LANES: usize = 16;

pub(super) type Lanes = [f32; LANES];

/// The sum of all parts, halved until one is left.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum(parts: Lanes) -> f32 {
    let mut parts = parts;
    let mut width = LANES / 2;
    while width > 0 {
        for n in 0..width {
            parts[n] += parts[n + width];
        }
        width /= 2;
    }
    parts[0]
}

/// The largest of all parts.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn largest(parts: Lanes) -> f32 {
    let mut most = f32::NEG_INFINITY;
    for part in parts {
        most = if part > most { part } else { most };
    }
    most
}

/// The sum over n of a_n b_n, in [`LANES`] parts.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0f32; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for n in 0..LANES {
            parts[n] = a[n].mul_add(b[n], parts[n]);
        }
    }
    for (n, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
        parts[n] = a.mul_add(*b, parts[n]);
    }
    sum(parts)
}

/// e^x to about 1e-7 of it; 0 below -87.3, and e^88 above 88.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its minimax polynomial of degree 5 (Cephes, S. Moshier, `expf`).
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 x 2^23: adding it leaves an integer in the lowest bits
    let bounded = x.clamp(-88.0, 88.0);
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, bounded);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut y = 1.987_569_1e-4f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        y = y.mul_add(r, c);
    }
    let y = y.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    // Below, the result would be subnormal.
    if x < -87.3 { 0.0 } else { y * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_processor_lacks_is_named() {
        let of = [
            missing(true, true),
            missing(false, true),
            missing(true, false),
            missing(false, false),
        ];
        assert_eq!(of, [None, Some("AVX2"), Some("FMA"), Some("AVX2 and FMA")]);
    }

    #[test]
    fn exponentials_are_right_to_a_few_units_of_the_last_place() {
        fn all(x: &[f32]) -> Vec<f32> {
            #[target_feature(enable = "avx2,fma")]
            fn inner(x: &[f32]) -> Vec<f32> {
                x.iter().map(|&x| exp(x)).collect()
            }
            vectorised!(inner(x))
        }
        let x: Vec<f32> = (-8730..8800).map(|n| n as f32 * 0.01).collect();
        for (x, y) in x.iter().zip(all(&x)) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(y) / exact - 1.0).abs() < 2e-7, "e^{x} = {y}, not {exact}");
        }
        assert_eq!(all(&[0.0, f32::NEG_INFINITY, -87.4]), [1.0, 0.0, 0.0]);
        assert!(all(&[f32::NAN])[0].is_nan());
    }
}
