//! Repetition penalty: makes the tokens of the history less likely, whether they are in the prompt or were put out.
//!
//! ```text
//! row[id] = row[id] / float32(penalty) if row[id] > 0 else row[id] * float32(penalty)     # for each id in the history
//! ```
//!
//! N. S. Keskar, B. McCann, L. R. Varshney, C. Xiong, R. Socher, "CTRL: a conditional transformer language model for
//! controllable generation" (2019), with the rule for logits below 0 that transformers and others have added.
//!
//! Edge rules: how often a token occurs changes nothing. 1 is off.

use crate::changes::Token;

#[inline(always)]
pub(super) fn apply(penalty: f32, token: Token, logit: f32) -> f32 {
    if !token.is_seen {
        return logit;
    }
    // Multiplying or dividing by 1 changes nothing. A branch on the sign would be mispredicted for every other token.
    let (times, over) = if logit > 0.0 { (1.0, penalty) } else { (penalty, 1.0) };
    logit * times / over
}
