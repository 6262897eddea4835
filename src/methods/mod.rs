//! The methods, one file for each. There are two kinds:
//!
//! - A method that changes logits is a function from a logit, and what is known of its token, to the new logit.
//! - A filter drops tokens. It sees only the `State` (`search/`).
//!
//! No method knows another. The bitmask is not here, because it is applied in the first pass over the row (`row.rs`).

mod epsilon_cutoff;
mod eta_cutoff;
mod frequency_penalty;
mod logit_bias;
mod min_p;
mod presence_penalty;
mod repetition_penalty;
mod tfs;
mod top_a;
mod top_h;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical_p;

use crate::changes::Token;
use crate::context::Context;
use crate::error::RowError;
use crate::kernels::mass::Mass;
use crate::params::Params;
use crate::row::Row;
use crate::search::{Kept, Search, State};

/// Returns what of the context changes the row, or None if the row stays as it is in memory.
pub(crate) fn changing<'a>(params: &Params, context: &Context<'a>) -> Option<Context<'a>> {
    let is_penalized =
        params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0;
    let context = match is_penalized {
        true => *context,
        false => Context { prompt_ids: &[], output_ids: &[], ..*context },
    };
    (context.bitmask.is_some() || context.edits_logits()).then_some(context)
}

/// Returns the function that changes a logit. A banned token stays banned, and only a bias of -inf bans another one: what is beyond
/// the range of float32 becomes the largest or the smallest finite number.
#[inline(always)]
pub(crate) fn edit(params: &Params) -> impl Fn(f32, Token) -> f32 {
    let [repetition, frequency, presence] =
        [params.repetition_penalty, params.frequency_penalty, params.presence_penalty].map(|penalty| penalty as f32);
    let finite = |logit: f32| logit.clamp(f32::MIN, f32::MAX);
    move |logit, token| {
        if logit == f32::NEG_INFINITY || token.bias == f32::NEG_INFINITY {
            return f32::NEG_INFINITY;
        }
        let logit = finite(logit_bias::apply(token.bias, logit));
        let logit = finite(repetition_penalty::apply(repetition, token, logit));
        let logit = finite(frequency_penalty::apply(frequency, token, logit));
        finite(presence_penalty::apply(presence, token, logit))
    }
}

/// Applies the filters in their order, at a temperature that is not 0. Returns None if every token is kept.
#[inline(always)]
pub(crate) fn keep<R: Row>(
    row: &R,
    mass: Mass,
    params: &Params,
    search: &mut Search,
) -> Result<Option<Kept>, RowError> {
    let mut state = State::all(*row, mass, search);
    top_k::apply(params.top_k, &mut state)?;
    top_p::apply(params.top_p, &mut state)?;
    min_p::apply(params.min_p, &mut state)?;
    typical_p::apply(params.typical_p, &mut state)?;
    epsilon_cutoff::apply(params.epsilon_cutoff, &mut state)?;
    top_a::apply(params.top_a, &mut state)?;
    eta_cutoff::apply(params.eta_cutoff, &mut state)?;
    top_n_sigma::apply(params.top_n_sigma, &mut state)?;
    tfs::apply(params.tfs, &mut state)?;
    top_h::apply(params.top_h, &mut state)?;
    Ok(state.kept())
}
