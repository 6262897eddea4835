//! Typical-p, or locally typical sampling: keeps the tokens whose surprise is nearest to what is expected, which is the
//! entropy.
//!
//! ```text
//! mean     = (2 * (mass * surprise).sum() + W) // (2 * W)    # of what was kept before; surprise as in kernels/surprise.rs
//! distance = abs(surprise - mean)
//! need     = min(W, max(1, ceil(float64(p) * float64(W))))
//! kept     = distance <= min(d for d in distance if mass[distance <= d].sum() >= need)
//! ```
//!
//! C. Meister, T. Pimentel, G. Wiher, R. Cotterell, "Locally typical sampling" (TACL 2023).
//!
//! Edge rules: all tokens at the last distance are kept. The most probable token may be dropped. 1 is off.

use crate::error::RowError;
use crate::kernels::top_p::Share;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(p: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if p < 1.0 { keep(p, state) } else { Ok(()) }
}

#[inline(never)]
fn keep<R: Row>(p: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    let moments = state.moments(false);
    let mean = moments.mean().ok_or(RowError::Changed)?; // the most probable token always has a mass
    let share = Share { p, is_exceeded: false };
    state.keep_nearest(mean, share.need(moments.mass), moments.mass)
}
