//! Adaptive-p: makes the tokens more likely whose probability is near a target, and keeps the probability of the tokens of a
//! text near it on average. After each draw the sampler notes how probable the token was.
//!
//! ```text
//! center = clip(2 * target - average, 0, 1)       # average: of the probabilities of the tokens drawn before
//! ```
//!
//! `kernels/adaptive.rs` has the masses that the kept tokens get. It is from MrJackSpade and ddh0, in llama.cpp (pull request 17927).
//!
//! Edge rules: no token is dropped. This comes last wherever the order names it, as in llama.cpp. -1 is off.

use crate::error::RowError;
use crate::params::Params;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<(), RowError> {
    if params.adaptive_target < 0.0 { Ok(()) } else { reweigh(params, state) }
}

#[inline(never)]
fn reweigh<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<(), RowError> {
    let target = params.adaptive_target;
    let average = params.adaptive_average.unwrap_or(target);
    state.reweigh((2.0 * target - average).clamp(0.0, 1.0))
}
