//! Encoder repetition penalty: makes the tokens of the prompt more likely.
//!
//! ```text
//! row[id] = row[id] * float32(penalty) if row[id] > 0 else row[id] / float32(penalty)     # for each id in the prompt
//! ```
//!
//! From transformers: the opposite of the repetition penalty, and of the prompt alone.
//!
//! Edge rules: how often a token occurs changes nothing. Below 1 the tokens become less likely. 1 is off.

#[inline(always)]
pub(super) fn apply(penalty: f32, logit: f32) -> f32 {
    if logit > 0.0 { logit * penalty } else { logit / penalty }
}
