//! DRY ("don't repeat yourself"): makes each token that would extend a repeated sequence less likely, the longer the sequence
//! the more.
//!
//! ```text
//! row[id] = row[id] - float32(multiplier * power(base, length - allowed_length))      # for each id with such a length
//! ```
//!
//! The length of a token is the largest number of last tokens of the history that also stand before an occurrence of it.
//!
//! P. E. Weidmann (p-e-w), text-generation-webui, pull request 5677 (2024), with llama.cpp's Z-algorithm.
//!
//! Edge rules: no sequence contains a breaker, and no breaker is penalized. The product is computed in float64 and clipped to
//! the finite range. A multiplier of 0 is off.

use super::find::power;
use crate::lanes::BLOCK;
use crate::params::Params;
use crate::repeats::{Match, Repeats};

/// Calls `found` with tokens and how many of the tokens before them are repeated, if that is penalized. A token may be found
/// more than once: the largest number counts. `breakers` has a bit for each token of the row, or nothing if none is a breaker.
pub(super) fn find(params: &Params, breakers: &[u64], repeats: &Repeats, mut found: impl FnMut(u32, u32)) {
    let is_breaker =
        |id: u32| breakers.get(id as usize / BLOCK).is_some_and(|word| word >> (id as usize % BLOCK) & 1 == 1);
    let longest = repeats.longest();
    let first = &repeats.reversed()[..longest as usize];
    let breaker = if breakers.is_empty() { None } else { first.iter().position(|&id| is_breaker(id)) };
    let most = breaker.map_or(longest, |place| place as u32);
    let allowed = u32::try_from(params.dry_allowed_length).unwrap_or(u32::MAX);
    // Where a text repeats a few tokens all the time, most of what is found was found before.
    let mut last_found = [(u32::MAX, 0); 256];
    for Match { next: id, length } in repeats.matches() {
        let length = length.min(most);
        if length >= allowed {
            let last = &mut last_found[id as usize % 256];
            let was_found = last.0 == id && last.1 >= length;
            if !was_found && !is_breaker(id) {
                *last = (id, length);
                found(id, length);
            }
        }
    }
}

/// Returns what to subtract from the logit of a token before which so many tokens are repeated.
pub(super) fn penalty(params: &Params, length: u32) -> f32 {
    let beyond = u64::from(length).saturating_sub(params.dry_allowed_length);
    let penalty = params.dry_multiplier * power(params.dry_base, beyond);
    (penalty as f32).min(f32::MAX)
}

#[inline(always)]
pub(super) fn apply(penalty: f32, logit: f32) -> f32 {
    logit - penalty
}
