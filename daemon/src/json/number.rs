//! The length of a number when written out.

use super::{MAX_EXPONENT, MAX_NUMBER_DIGITS};

/// A number's parts by the grammar of RFC 8259. The sign does not matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberParts<'a> {
    /// Digits before the point: `0`, or digits that start with another one.
    pub(super) integer: &'a [u8],
    /// Digits after the point; empty if there is none.
    pub(super) fraction: &'a [u8],
    /// Whether the exponent has a minus sign.
    pub(super) exponent_is_negative: bool,
    /// Digits of the exponent; empty if there is none.
    pub(super) exponent: &'a [u8],
}

/// Whether the number needs at most [`MAX_NUMBER_DIGITS`] digits when written out without an exponent.
///
/// With the exponent `e`, these digits count:
/// * after the point: the fraction's digits minus `e`, at least 0. Trailing zeros count, since `numeric` keeps them.
/// * before the point: those from the first digit other than 0 to the point, after the point has moved by `e`; at least 1, since
///   `0.5` has a 0 there. Leading zeros (`0.001e5`) do not count. Zero itself has 1.
///
/// So `1e999` is accepted and `1e1000` is not; `1e-999` is accepted and `1e-1000` is not; `0e5000` is `0`, and `0e-5000` is not
/// accepted. An exponent beyond [`MAX_EXPONENT`] is not accepted, even of zero.
pub(super) fn is_short_enough(number: &NumberParts<'_>) -> bool {
    let Some(exponent) = exponent_value(number) else {
        return false;
    };
    let integer_digits = match number.integer {
        [b'0'] => match number.fraction.iter().position(|digit| *digit != b'0') {
            None => 1,
            Some(leading_zeros) => (exponent - leading_zeros as i64).max(1),
        },
        digits => (digits.len() as i64 + exponent).max(1),
    };
    let fraction_digits = (number.fraction.len() as i64 - exponent).max(0);
    // Both are at most a body's length plus MAX_EXPONENT, so the sum cannot overflow.
    integer_digits + fraction_digits <= MAX_NUMBER_DIGITS as i64
}

/// The exponent with its sign; `None` beyond [`MAX_EXPONENT`].
fn exponent_value(number: &NumberParts<'_>) -> Option<i64> {
    let mut magnitude = 0u64;
    for digit in number.exponent {
        magnitude = magnitude * 10 + u64::from(digit - b'0');
        if magnitude > MAX_EXPONENT {
            return None;
        }
    }
    let magnitude = magnitude as i64;
    Some(if number.exponent_is_negative { -magnitude } else { magnitude })
}
