//! Top-n-sigma: keeps the tokens whose logit is at most n standard deviations below the largest one.
//!
//! ```text
//! sigma = the standard deviation of the logits that were kept before      # as in kernels/spread.rs
//! floor = float64(max(x)) - float64(n) * sigma
//! kept  = order[float64(x[order]) >= floor]                               # order: the tokens that were kept before
//! ```
//!
//! C. Tang, J. Liu, H. Xu, L. Huang, "Top-n-sigma: not all logits are you need" (arXiv:2411.07641, 2024).
//!
//! Edge rules: banned tokens do not count. The tokens with the largest logit stay in any case. The temperature does not
//! matter, because it divides both sides. 0 is off.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(n: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if n > 0.0 { keep(n, state) } else { Ok(()) }
}

#[inline(never)]
fn keep<R: Row>(n: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    let (first, spread) = state.spread();
    let sigma = spread.sigma().ok_or(RowError::Changed)?; // the first token counts
    let floor = f64::from(first) - n * sigma;
    let nearest = floor as f32;
    state.keep_from(if f64::from(nearest) < floor { nearest.next_up() } else { nearest.max(f32::MIN) });
    Ok(())
}
