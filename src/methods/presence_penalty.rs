//! Presence penalty: makes each token that was put out less likely, however often it was.
//!
//! ```text
//! row[id] = row[id] - float32(penalty)          # for each id in the output
//! ```
//!
//! From the OpenAI API. Edge rules: the prompt does not count. A penalty below 0 makes these tokens more likely. 0 is off.

use crate::changes::Token;

#[inline(always)]
pub(super) fn apply(penalty: f32, token: Token, logit: f32) -> f32 {
    if token.count > 0 { logit - penalty } else { logit }
}
