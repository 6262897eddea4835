//! Eta cutoff, or eta sampling: keeps the tokens whose probability is at least eta, which is smaller where the entropy is
//! larger.
//!
//! ```text
//! bits  = log2(W) - 41 + float64((mass * surprise).sum()) / float64(W) / 2**22     # the entropy of what was kept before
//! eta   = min(e, sqrt(e) * 2**-bits)
//! least = ceil(eta * float64(W))
//! kept  = order[mass[order] >= min(max(least, 1), mass[order[0]])]    # order: the tokens that were kept before
//! ```
//!
//! J. Hewitt, C. D. Manning, P. Liang, "Truncation sampling as language model desmoothing" (Findings of EMNLP 2022).
//!
//! Edge rules: the first token that was kept before stays, and so do those that tie with it. 0 is off.

use crate::error::RowError;
use crate::kernels::series::exp2;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(e: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if e > 0.0 { keep(e, state) } else { Ok(()) }
}

#[inline(never)]
fn keep<R: Row>(e: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    let moments = state.moments(false);
    let bits = moments.entropy().ok_or(RowError::Changed)?; // the most probable token always has a mass
    let eta = e.min(e.sqrt() * exp2(-bits));
    state.keep_heavier(eta * moments.mass as f64);
    Ok(())
}
