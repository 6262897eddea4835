//! Logit bias: adds a number to the logits of single tokens.
//!
//! ```text
//! row[id] = row[id] + float32(bias)             # a bias of -inf bans the token
//! ```
//!
//! The OpenAI API calls it so; transformers has it as `sequence_bias`.

#[inline(always)]
pub(super) fn apply(bias: f32, logit: f32) -> f32 {
    logit + bias
}
