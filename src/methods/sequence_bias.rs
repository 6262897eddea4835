//! Sequence bias: adds a number to the logit of the last token of a sequence, where the history ends with the tokens before
//! it.
//!
//! ```text
//! row[ids[-1]] = row[ids[-1]] + float32(bias)        # for each sequence, where history[-len(ids) + 1:] == ids[:-1]
//! ```
//!
//! From transformers. There as here, bad words are sequences with a bias of -inf.
//!
//! Edge rules: biases of the same token are summed in float64 before they are rounded, and clipped to the finite range. A bias
//! of -inf bans the token.

use crate::context::{Context, Rules};

/// Calls `found` with the last token of each sequence whose other tokens are the last ones of the history, and its bias.
pub(super) fn find(rules: &Rules<'_>, context: &Context<'_>, mut found: impl FnMut(u32, f64)) {
    let biased = rules.sequence_bias.iter().map(|(ids, bias)| (ids, *bias));
    let banned = rules.bad_words_ids.iter().map(|ids| (ids, f64::NEG_INFINITY));
    for (ids, bias) in biased.chain(banned) {
        if let Some((&last, others)) = ids.split_last()
            && context.ends_with(others)
        {
            found(last, bias);
        }
    }
}

#[inline(always)]
pub(super) fn apply(bias: f64, logit: f32) -> f32 {
    logit + (bias as f32).clamp(f32::MIN, f32::MAX)
}
