//! Epsilon cutoff: keeps the tokens whose probability is at least e.
//!
//! ```text
//! least = ceil(float64(e) * float64(W))                       # W is the mass of what was kept before
//! kept  = order[mass[order] >= min(max(least, 1), mass[order[0]])]    # order: the tokens that were kept before
//! ```
//!
//! J. Hewitt, C. D. Manning, P. Liang, "Truncation sampling as language model desmoothing" (Findings of EMNLP 2022).
//!
//! Edge rules: the first token that was kept before stays, and so do those that tie with it. 0 is off.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(e: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if e > 0.0 { state.keep_at_least(&|_, total| e * total) } else { Ok(()) }
}
