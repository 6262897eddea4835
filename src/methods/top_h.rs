//! Top-h: keeps the most probable tokens as long as their part of the entropy is at most the share h of it. It looks at no
//! more than 100 tokens.
//!
//! ```text
//! first    = order[:100]                                      # order: the tokens that were kept before
//! m        = mass[first];  W = m.sum()
//! base     = rint((log2(W) - 41) * 2**22)
//! terms    = m * np.maximum(base + surprise[first], 0)        # W times -p log2 p, in units of 2**-22 bits; exact integers
//! kept     = first[: max(1, np.count_nonzero(float64(np.cumsum(terms)) <= float64(h) * float64(terms.sum())))]
//! ```
//!
//! E. B. Potraghloo, S. Azizi, S. Kundu, M. Pedram, "Top-H decoding: adapting the creativity and coherence with bounded
//! entropy in text generation" (NeurIPS 2025).
//!
//! Edge rules: the first token is kept in any case. Of equal logits, the lower ids are kept. 1 keeps 100 tokens, and 0 is off.

use crate::error::RowError;
use crate::kernels::mass::S;
use crate::kernels::order;
use crate::kernels::series::log2;
use crate::row::Row;
use crate::search::State;

/// The most tokens that it keeps. transformers has the same limit.
const MOST: usize = 100;

#[inline(always)]
pub(super) fn apply<R: Row>(h: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    if h > 0.0 { keep(h, state) } else { Ok(()) }
}

#[inline(never)]
fn keep<R: Row>(h: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    let mass = state.mass();
    let (keys, masses) = state.first_of_kept(MOST)?;
    let total = masses.iter().copied().fold(0, u64::wrapping_add);
    let base = ((log2(total.max(1)) - f64::from(S)) * f64::from(1 << 22)).round_ties_even() as i64;
    let parts = || {
        keys.iter().zip(masses).map(|(&key, &token_mass)| {
            // Because of the rounding, the sum may be slightly below 0 for a token with nearly all of the mass.
            let surprise = (base + i64::from(mass.surprise(order::logit(key)))).max(0);
            u128::from(token_mass) * u128::from(surprise as u64)
        })
    };
    let most = h * parts().sum::<u128>() as f64;
    let mut running = 0;
    let within = parts().take_while(|part| {
        running += part;
        running as f64 <= most
    });
    let place = within.count().saturating_sub(1);
    let last = *keys.get(place).ok_or(RowError::Changed)?; // at least one token was kept before
    state.keep_up_to(last);
    Ok(())
}
