//! Min-p: keeps the tokens that are at least p times as probable as the most probable one.
//!
//! ```text
//! kept = order[mass[order] >= ceil(float64(p) * float64(mass[order[0]]))]     # order: the tokens that were kept before
//! ```
//!
//! N. N. Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs" (ICLR 2025).
//!
//! Edge rules: every token that ties with the first one that was kept before is kept. 0 is off.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(p: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if p > 0.0 {
        state.keep_share_of_first(p);
    }
    Ok(())
}
