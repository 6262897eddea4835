//! XTC, "exclude top choices": sometimes drops all tokens above a threshold but the least probable one of them.
//!
//! ```text
//! least = max(1, ceil(float64(threshold) * float64(W)))       # W is the mass of what was kept before
//! reach = np.count_nonzero(mass[order] >= least)              # order: the tokens that were kept before
//! kept  = order[reach - 1 :] if reach >= 2 and word < probability * 2**64 else order
//! ```
//!
//! The word is the second of the random block of the draw, of which the draw itself takes the first. From p-e-w, in
//! text-generation-webui (2024).
//!
//! Edge rules: of equal logits at the threshold, the last id stays. If a token is exempt that would be dropped, nothing is. A
//! probability of 0 is off, and 1 is always on. With a threshold above 1/2 nothing is dropped.

use crate::error::RowError;
use crate::params::Params;
use crate::row::Row;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<R: Row>(
    params: &Params,
    word: u64,
    exempt: &[u32],
    state: &mut State<'_, R>,
) -> Result<(), RowError> {
    const WORDS: f64 = (1u128 << 64) as f64;
    if params.xtc_probability <= 0.0 {
        return Ok(());
    }
    match u128::from(word) < (params.xtc_probability * WORDS) as u128 {
        true => state.drop_before_last_of(params.xtc_threshold, exempt),
        false => Ok(()),
    }
}
