//! Top-k: keeps the k largest logits.
//!
//! ```text
//! kept = order[:k]                              # order = np.lexsort((ids, -row))
//! ```
//!
//! Edge rules: exactly k tokens are kept. Of equal logits at the last place, the lower ids are. The step `top_k_with_ties`
//! keeps all of these instead, as transformers and vLLM do. 0 is off, and a k of at least the number of tokens keeps all of
//! them.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(k: u64, with_ties: bool, state: &mut State<'_, R>) -> Result<(), RowError> {
    match usize::try_from(k) {
        Ok(k) if k > 0 => state.keep_first(k, with_ties),
        _ => Ok(()),
    }
}
