//! Exponential decay length penalty: makes the end of a text more likely with each token, from a number of tokens on.
//!
//! ```text
//! row[id] = row[id] + abs(row[id]) * float32(power(factor, len(output) - start) - 1)       # for each id that ends a text
//! ```
//!
//! From transformers. Edge rules: an output of at most `start` tokens changes nothing. The power is computed in float64 and
//! clipped to the finite range. A factor below 1 makes the end less likely.

use super::find::power;
use crate::context::{Context, Rules};

/// Returns the share of its absolute value that is added to the logit of a token that ends the text, if it is not 0.
pub(super) fn growth(rules: &Rules<'_>, context: &Context<'_>) -> Option<f32> {
    let (start, factor) = rules.exponential_decay_length_penalty?;
    let beyond = (context.output_ids.len() as u64).checked_sub(start).filter(|&beyond| beyond > 0)?;
    Some(((power(factor, beyond) - 1.0) as f32).min(f32::MAX))
}

#[inline(always)]
pub(super) fn apply(growth: f32, logit: f32) -> f32 {
    logit + logit.abs() * growth
}
