//! Min-p: keeps the tokens that are at least p times as probable as the most probable one.
//!
//! ```text
//! kept = order[mass[order] >= ceil(p * 2**S)]                # the most probable token has a mass of 2**S
//! ```
//!
//! N. N. Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs" (ICLR 2025).
//!
//! Edge rules: every token that ties with the maximum is kept. 0 is off.

use crate::isa::Vector;
use crate::kernels::mass::S;
use crate::logit::Logit;
use crate::search::State;

#[inline(always)]
pub(super) fn apply<I: Vector, T: Logit>(p: f64, state: &mut State<'_, I, T>) {
    if p > 0.0 {
        state.keep_at_least((p * (1u64 << S) as f64).ceil() as u64);
    }
}
