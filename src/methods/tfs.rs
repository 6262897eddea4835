//! Tail-free sampling: keeps the tokens before the tail, which begins where the sorted probabilities have stopped to bend.
//! `kernels/tail.rs` has the formula.
//!
//! T. Bricken, "Tail free sampling" (https://www.trentonbricken.com/Tail-Free-Sampling, 2019). Which token is the first of the
//! tail is decided as in llama.cpp, which had this filter once, and in KoboldCpp.
//!
//! Edge rules: at least one token is kept. Where at most three tokens were kept before, or where the probabilities do not bend
//! anywhere, all of them are kept. Of equal logits, the lower ids are kept. 1 is off.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(z: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if z < 1.0 { state.keep_before_tail(z) } else { Ok(()) }
}
