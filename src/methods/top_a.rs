//! Top-a: keeps the tokens whose probability is at least a times the square of the largest probability.
//!
//! ```text
//! first = mass[order[0]]                                      # order: the tokens that were kept before; W is their mass
//! least = ceil(float64(a) * float64(first) * float64(first) / float64(W))
//! kept  = order[mass[order] >= min(max(least, 1), first)]
//! ```
//!
//! From BlinkDL's RWKV-LM and KoboldAI.
//!
//! Edge rules: the first token that was kept before stays, and so do those that tie with it. 0 is off.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(a: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if a > 0.0 { state.keep_at_least(&|first, total| a * first * first / total) } else { Ok(()) }
}
