//! Tests pairs that values at a few points would not distinguish, or that the reference reads in its own way.

use super::*;

#[test]
fn functions_that_jump_are_compared_where_they_jump() {
    all(
        true,
        &[
            ("\\lfloor x+1\\rfloor", "\\lfloor x\\rfloor+1"),
            ("\\lfloor\\frac{n}{2}\\rfloor", "\\lfloor n/2\\rfloor"),
            ("x-\\lfloor x\\rfloor", "-\\lfloor x\\rfloor+x"),
        ],
    );
    all(
        false,
        &[
            ("\\lfloor x\\rfloor", "\\lceil x\\rceil-1"),
            ("\\lceil x\\rceil", "\\lfloor x\\rfloor+1"),
            ("\\lfloor x\\rfloor", "-\\lfloor -x\\rfloor-1"),
            ("\\lfloor\\frac{n}{2}\\rfloor", "\\lceil\\frac{n}{2}\\rceil-1"),
            ("\\lfloor x+y\\rfloor", "\\lceil x+y\\rceil-1"),
        ],
    );
}

/// The reference loses the power of the constant, and only that of the letter by itself.
#[test]
fn a_power_of_the_letter_i_is_the_letter() {
    all(
        true,
        &[
            ("I", "I^4"),
            ("3+I", "I^{2}+3"),
            ("-1", "I\\cdot I"),
            ("-1", "{I}^2"),
            ("I", "I^2"),
            ("-1", "(-I)^2"),
        ],
    );
    all(false, &[("2", "I^4+1"), ("1", "I^4"), ("-1", "I^2"), ("-1", "I_2^2"), ("2", "2^{I^4}")]);
}
