//! Logarithms and powers by fixed series, because those of two system libraries may differ.
//!
//! ```text
//! w = m * 2**e, m in [1, 2);  r = (m - 1) / (m + 1)
//! ln w   = e * ln 2 + 2 artanh(r)               # artanh r = r + r**3 / 3 + r**5 / 5 + ...
//! log2 w = e + 2 artanh(r) * log2(e)
//! 2**x   = 2**n * exp(f * ln 2)                 # n = rint(x), f = x - n; exp y = 1 + y / 1 * (1 + y / 2 * (1 + ...))
//! ```
//!
//! Each operation is in float64 and rounded once, and none is fused. The results are within a few units in the last place.
//!
//! `_series.py` has the same functions for the reference.

use std::f64::consts::{LN_2, LOG2_E};

/// The series for artanh ends where its terms fall below 2**-56.
const TERMS_OF_ARTANH: i32 = 17;
/// The series for exp ends where its terms fall below 2**-56.
const TERMS_OF_EXP: i32 = 14;

/// Returns the natural logarithm of an integer of at least 1.
#[inline(never)] // one number a row: a copy of the series in each recipe would only make them longer
pub fn ln(w: u64) -> f64 {
    let (exponent, ln_m) = split(w);
    exponent * LN_2 + ln_m
}

/// Returns the binary logarithm of an integer of at least 1.
pub fn log2(w: u64) -> f64 {
    let (exponent, ln_m) = split(w);
    exponent + ln_m * LOG2_E
}

/// Returns e and ln m for w = m * 2**e and m in [1, 2).
fn split(w: u64) -> (f64, f64) {
    let bits = (w as f64).to_bits();
    let exponent = (bits >> 52) as f64 - 1023.0;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let r = (m - 1.0) / (m + 1.0);
    let square = r * r;
    let mut series = 0.0;
    for term in (0..TERMS_OF_ARTANH).rev() {
        series = series * square + 1.0 / f64::from(2 * term + 1);
    }
    (exponent, 2.0 * r * series)
}

/// Returns 2**x for x in [-1000, 1000].
pub fn exp2(x: f64) -> f64 {
    let n = x.round_ties_even();
    let y = (x - n) * LN_2;
    let mut series = 1.0;
    for term in (1..=TERMS_OF_EXP).rev() {
        series = 1.0 + y / f64::from(term) * series;
    }
    series * f64::from_bits(((1023 + n as i64) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_library() {
        let powers = (0..64).map(|e| 1u64 << e);
        for w in powers.flat_map(|w| [w, w + w / 3, w + w / 7, 2 * (w - 1) + 1, w.saturating_sub(1).max(1)]) {
            let x = w as f64;
            assert!((ln(w) - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln().max(1.0), "ln({w})");
            assert!((log2(w) - x.log2()).abs() <= 4.0 * f64::EPSILON * x.log2().max(1.0), "log2({w})");
        }
    }

    #[test]
    fn exp2_is_that_of_the_library() {
        for step in -100_000..=100_000 {
            let x = f64::from(step) * 1e-2 + f64::from(step % 7) * 1e-5;
            let x = x.clamp(-1000.0, 1000.0);
            assert!((exp2(x) / x.exp2() - 1.0).abs() <= 4.0 * f64::EPSILON, "2**{x}");
        }
        assert_eq!([exp2(0.0), exp2(10.0), exp2(-41.0)], [1.0, 1024.0, 1.0 / (1u64 << 41) as f64]);
    }
}
