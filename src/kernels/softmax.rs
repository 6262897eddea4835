//! Computes the probability or the log-probability of every token.
//!
//! ```text
//! softmax     = weight * float32(1 / W)                       # weight as in mass.rs, W the sum of the masses
//! log_softmax = float32((x - max(row)) / temperature - log(W / 2**S))       # in float64
//! ```
//!
//! Edge rules: a probability below about 2**-64 is 0. The probability of a banned token is 0, and its log-probability is -inf.
//! The logits are multiplied by the inverse of the temperature instead of being divided by it.
//!
//! How it is fast: the pass that sums the masses writes the weights where the probabilities will go. A second pass scales
//! them.

use super::mass::{LEAST_WEIGHT, Mass, S};
use super::series::ln;
use crate::isa::Vector;
use crate::lanes::{BLOCK, Sum};
use crate::logit::Logit;
use crate::row::{Buffer, Plain, Row};

/// Fills `out` with the probabilities.
#[inline(always)]
pub fn softmax<R: Row>(row: &R, mass: Mass, out: &mut [f32]) {
    let (mut sum, light) = (Sum::default(), mass.light());
    let mut buffer = Buffer::new();
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    for ((index, &maximum), out) in row.maxima().iter().enumerate().zip(blocks) {
        *out = mass.weights::<R::Isa>(row.block(index, &mut buffer));
        R::Isa::add(out, maximum <= light, &mut sum);
    }
    if !rest.is_empty() {
        let index = row.maxima().len() - 1;
        let weights = mass.weights::<R::Isa>(row.block(index, &mut buffer));
        R::Isa::add(&weights, row.maxima()[index] <= light, &mut sum);
        rest.copy_from_slice(&weights[..rest.len()]);
    }
    let factor = (1.0 / sum.total() as f64) as f32;
    for p in out {
        *p = if *p > LEAST_WEIGHT { *p * factor } else { 0.0 };
    }
}

/// Computes the natural logarithms of probabilities.
#[derive(Clone, Copy, Debug)]
pub struct LogProbability {
    maximum: f64,
    inverse: f64,
    log_total: f64,
}

impl LogProbability {
    /// Prepares for logits of which this is the largest, from the sum of their masses, which is at least 1.
    #[inline(always)]
    pub fn new(maximum: f32, temperature: f64, total: u64) -> Self {
        LogProbability {
            maximum: f64::from(maximum),
            inverse: (1.0 / temperature).min(f64::MAX),
            log_total: ln(total) - f64::from(S) * std::f64::consts::LN_2,
        }
    }

    /// Returns that of a token with logit `x`: -inf if it is banned.
    #[inline(always)]
    pub fn of(self, x: f32) -> f64 {
        (f64::from(x) - self.maximum) * self.inverse - self.log_total
    }
}

/// Fills `out` with the natural logarithms of the probabilities.
#[inline(always)]
pub fn log_softmax<I: Vector, T: Logit>(row: &Plain<'_, I, T>, log_probability: LogProbability, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(row.stored()) {
        *out = log_probability.of(x.to_f32()) as f32;
    }
}
