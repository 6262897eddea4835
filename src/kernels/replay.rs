//! Computes the log-probability of one token among some tokens of a row, as if all others were banned.
//!
//! ```text
//! kept   = row[ids]
//! result = log_softmax(kept)[ids == token]      # as in softmax.rs, and in float64
//! ```
//!
//! Edge rules: a token that is not among these has -inf. Only the logits of these tokens are read, so no other can be wrong.
//!
//! How it is fast: the kept logits are gathered into whole blocks, which are then weighed like those of a row.

use super::mass::Mass;
use super::softmax::LogProbability;
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::{self, BLOCK};
use crate::logit::Logit;

/// Returns the log-probability of the token. `ids` must be ids of the row, and no two of them may be equal. `kept` is memory
/// to work on.
#[inline(always)]
pub fn replay<I: Vector, T: Logit>(
    row: &[T],
    ids: &[u32],
    token: u32,
    temperature: f64,
    kept: &mut Vec<f32>,
) -> Result<f64, RowError> {
    let size = ids.len().next_multiple_of(BLOCK);
    kept.clear();
    reserve(kept, size)?;
    kept.resize(size, f32::NEG_INFINITY);
    for (x, &id) in kept.iter_mut().zip(ids) {
        *x = row[id as usize].to_f32();
    }
    let mut is_wrong = false;
    for x in kept.iter() {
        is_wrong |= x.is_nan() | (*x == f32::INFINITY);
    }
    if is_wrong {
        return Err(first_not_finite(ids, kept));
    }
    let maximum = lanes::maximum(kept);
    if maximum == f32::NEG_INFINITY {
        return Err(RowError::Empty);
    }
    let Some(place) = ids.iter().position(|&id| id == token) else { return Ok(f64::NEG_INFINITY) };
    if temperature == 0.0 {
        let largest = ids.iter().zip(kept.iter()).filter(|&(_, &x)| x == maximum).map(|(&id, _)| id).min();
        return Ok(if largest == Some(token) { 0.0 } else { f64::NEG_INFINITY });
    }
    let mass = Mass::new(maximum, temperature);
    let mut total = 0;
    for block in kept.as_chunks::<BLOCK>().0 {
        total += Mass::of_weights::<I>(&mass.weights::<I>(block), false);
    }
    Ok(LogProbability::new(maximum, temperature, total).of(kept[place]))
}

/// Returns the error for the lowest id with NaN or +inf.
#[cold]
#[inline(never)]
fn first_not_finite(ids: &[u32], kept: &[f32]) -> RowError {
    let wrong = ids.iter().zip(kept).filter(|&(_, x)| x.is_nan() || *x == f32::INFINITY);
    match wrong.min_by_key(|&(&id, _)| id) {
        Some((&id, &value)) => RowError::NotFinite { id: id as usize, value },
        None => RowError::Changed,
    }
}
