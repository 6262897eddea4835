//! Frequency penalty: makes a token less likely each time that it is put out.
//!
//! ```text
//! row[id] = row[id] - float32(penalty) * float32(count)       # for each id in the output, with its number there
//! ```
//!
//! From the OpenAI API. Edge rules: the prompt does not count. A penalty below 0 makes these tokens more likely. 0 is off.

use crate::changes::Token;

#[inline(always)]
pub(super) fn apply(penalty: f32, token: Token, logit: f32) -> f32 {
    if token.count > 0 { logit - penalty * token.count as f32 } else { logit }
}
