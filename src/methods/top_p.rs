//! Top-p, or nucleus sampling: keeps the smallest set of most probable tokens whose mass reaches a share of the whole.
//!
//! ```text
//! need = min(W, max(1, ceil(float64(p) * float64(W))))       # W is the mass of what was kept before
//! kept = order[: np.searchsorted(np.cumsum(mass[order]), need) + 1]
//! ```
//!
//! A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The curious case of neural text degeneration" (ICLR 2020).
//!
//! Edge rules: at least one token is kept. The token that crosses the line is kept. Of equal logits, the lower ids are kept.
//! 1 is off. The step `top_p_beyond` keeps one token more where the mass reaches the share exactly, as SGLang does.

use crate::error::RowError;
use crate::kernels::top_p::Share;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(p: f64, is_exceeded: bool, state: &mut State<'_, R>) -> Result<(), RowError> {
    if p < 1.0 { state.keep_share(Share { p, is_exceeded }) } else { Ok(()) }
}
