//! DRY ("don't repeat yourself"): makes each token that would extend a repeated sequence less likely, the longer the sequence the
//! more.
//!
//! ```text
//! row[id] = row[id] - float32(multiplier * power(base, length - allowed_length))      # for each id with such a length
//! ```
//!
//! The length of a token is the largest number of last tokens of the history that also stand before an occurrence of it.
//!
//! P. E. Weidmann (p-e-w), text-generation-webui, pull request 5677 (2024), with llama.cpp's Z-algorithm.
//!
//! Edge rules: no sequence contains a breaker, and no breaker is penalized. The product is computed in float64 and clipped to the
//! finite range. A multiplier of 0 is off.

use super::power;
use crate::params::Params;
use crate::repeats::Repeats;

/// Calls `found` with tokens and how many of the tokens before them are repeated, if that is penalized.
pub(super) fn find(params: &Params, breakers: &[u32], repeats: &Repeats, mut found: impl FnMut(u32, u32)) {
    let history = repeats.reversed();
    let window = match params.dry_penalty_last_n {
        0 => history.len(),
        count => usize::try_from(count).map_or(history.len(), |count| count.min(history.len())),
    };
    // The match before the first token of the window is empty, as no token before that one counts.
    let in_window =
        || (1..window).zip(repeats.iter()).map(|(place, (id, length))| (id, length.min((window - place) as u32)));
    let longest = in_window().map(|(_, length)| length).max().unwrap_or(0);
    let is_breaker = |id: &u32| breakers.binary_search(id).is_ok();
    let most = history[..longest as usize].iter().position(is_breaker).map_or(longest, |place| place as u32);
    if u64::from(most) < params.dry_allowed_length {
        return;
    }
    for (id, length) in in_window() {
        let length = length.min(most);
        if u64::from(length) >= params.dry_allowed_length && !is_breaker(&id) {
            found(id, length);
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
