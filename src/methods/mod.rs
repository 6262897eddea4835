//! The methods, one file for each. There are two kinds:
//!
//! - A method that changes logits is a function from a logit, and what is known of its token, to the new logit.
//! - A filter drops tokens. It sees only the `State` (`search/`).
//!
//! No method knows another. The bitmask is not here, because it is applied in the first pass over the row (`row.rs`). Methods
//! that only ban some tokens, or all others, are lines of `find`.

mod dry;
mod encoder_repetition_penalty;
mod epsilon_cutoff;
mod exponential_decay_length_penalty;
mod frequency_penalty;
mod logit_bias;
mod min_p;
mod no_repeat_ngram_size;
mod presence_penalty;
mod repetition_penalty;
mod sequence_bias;
mod top_a;
mod top_k;
mod top_p;
mod typical_p;

use crate::changes::{Changes, Extra, Found, Token};
use crate::context::{Context, Rules};
use crate::error::{RowError, reserve};
use crate::kernels::mass::Mass;
use crate::params::Params;
use crate::row::Row;
use crate::search::{Kept, Search, State};

/// Returns what of the context changes the row, or None if the row stays as it is in memory.
pub(crate) fn changing<'a>(params: &Params, context: &Context<'a>) -> Option<Context<'a>> {
    if context.is_empty() {
        return None; // the parameters alone change nothing
    }
    let is_penalized =
        params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0;
    let known = context;
    let context = match is_penalized {
        true => *context,
        false => Context { prompt_ids: &[], output_ids: &[], ..*context },
    };
    (context.bitmask.is_some() || context.edits_logits() || finds_anything(params, known)).then_some(context)
}

/// True if there may be something for [`find`] to find.
#[inline(always)]
fn finds_anything(params: &Params, context: &Context<'_>) -> bool {
    context.rules.is_some()
        || params.no_repeat_ngram_size != 0
        || params.dry_multiplier != 0.0
        || params.encoder_repetition_penalty != 1.0
}

/// Bans tokens, notes what else is known of others, and makes the places for all that are noted.
#[inline(always)]
pub(crate) fn find(
    params: &Params,
    context: &Context<'_>,
    tokens: usize,
    changes: &mut Changes,
) -> Result<(), RowError> {
    if finds_anything(params, context) { find_all(params, context, tokens, changes) } else { changes.make_places() }
}

/// This looks at the context alone, so that it needs no vector code.
#[inline(never)]
fn find_all(params: &Params, context: &Context<'_>, tokens: usize, changes: &mut Changes) -> Result<(), RowError> {
    let rules = context.rules.unwrap_or_default();
    let count = context.output_ids.len() as u64;
    rules.allowed_token_ids.into_iter().for_each(|ids| changes.ban_all_but(ids));
    if count == 0 {
        rules.forced_bos_token_id.into_iter().for_each(|id| changes.ban_all_but(&[id]));
        rules.begin_suppress_tokens.iter().for_each(|&id| changes.ban(id));
    }
    if params.max_new_tokens.checked_sub(1) == Some(count) {
        rules.forced_eos_token_id.into_iter().for_each(|id| changes.ban_all_but(&[id]));
    }
    if count < params.min_new_tokens {
        rules.eos_token_ids.iter().for_each(|&id| changes.ban(id));
    }
    rules.suppress_tokens.iter().for_each(|&id| changes.ban(id));

    let mut found = std::mem::take(&mut changes.found);
    let done = find_in_history(params, context, &rules, tokens, changes, &mut found);
    changes.found = found;
    done
}

fn find_in_history(
    params: &Params,
    context: &Context<'_>,
    rules: &Rules<'_>,
    tokens: usize,
    changes: &mut Changes,
    found: &mut Found,
) -> Result<(), RowError> {
    let Found { repeats, sequence_biases, repeated } = found;
    sequence_biases.clear();
    reserve(sequence_biases, rules.sequence_bias.len())?;
    sequence_bias::find(rules, context, |id, bias| match bias {
        f64::NEG_INFINITY => changes.ban(id),
        _ => sequence_biases.push((id, bias)),
    });
    repeated.clear();
    if params.no_repeat_ngram_size != 0 || params.dry_multiplier != 0.0 {
        let window = if params.no_repeat_ngram_size != 0 { 0 } else { params.dry_penalty_last_n };
        let (prompt_ids, output_ids) = context.history(window);
        repeats.find(prompt_ids, output_ids)?;
        no_repeat_ngram_size::find(params.no_repeat_ngram_size, repeats, |id| changes.ban(id));
    }
    if params.dry_multiplier != 0.0 {
        reserve(repeated, repeats.reversed().len())?;
        dry::find(params, rules.dry_sequence_breakers, repeats, |id, length| repeated.push((id, length)));
    }
    let encoded = if params.encoder_repetition_penalty != 1.0 { context.prompt_ids } else { &[] };
    let growth = exponential_decay_length_penalty::growth(rules, context);
    let ends = if growth.is_some() { rules.eos_token_ids } else { &[] };

    let biased = sequence_biases.iter().map(|(id, _)| id);
    changes.note(biased.chain(repeated.iter().map(|(id, _)| id)).chain(encoded).chain(ends), tokens);
    changes.make_places()?;
    if sequence_biases.is_empty() && repeated.is_empty() && encoded.is_empty() && ends.is_empty() {
        return Ok(());
    }
    changes.make_places_for_extras()?;
    for &(id, bias) in &*sequence_biases {
        changes.extra(id).into_iter().for_each(|extra| extra.sequence_bias += bias);
    }
    for &(id, length) in &*repeated {
        changes.extra(id).into_iter().for_each(|extra| extra.repeated = extra.repeated.max(length));
    }
    for &id in encoded {
        changes.extra(id).into_iter().for_each(|extra| extra.is_in_prompt = true);
    }
    for &id in ends {
        changes.extra(id).into_iter().for_each(|extra| extra.growth = growth.unwrap_or(0.0));
    }
    for extra in changes.extras().iter_mut().filter(|extra| extra.repeated > 0) {
        extra.dry = dry::penalty(params, extra.repeated);
    }
    Ok(())
}

/// Returns a power by repeated squaring, each product rounded to float64. What is beyond its range is the largest finite number.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut power, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            power *= square;
        }
        square *= square;
        rest >>= 1;
    }
    power.min(f64::MAX)
}

/// Returns the function that changes a logit. A banned token stays banned, and only a bias of -inf bans another one: what is beyond
/// the range of float32 becomes the largest or the smallest finite number.
#[inline(always)]
pub(crate) fn edit(params: &Params) -> impl Fn(f32, Token, Option<Extra>) -> f32 {
    let [encoder, repetition, frequency, presence] = [
        params.encoder_repetition_penalty,
        params.repetition_penalty,
        params.frequency_penalty,
        params.presence_penalty,
    ]
    .map(|penalty| penalty as f32);
    let finite = |logit: f32| logit.clamp(f32::MIN, f32::MAX);
    move |logit, token, extra| {
        if logit == f32::NEG_INFINITY || token.bias == f32::NEG_INFINITY {
            return f32::NEG_INFINITY;
        }
        let mut logit = finite(logit_bias::apply(token.bias, logit));
        if let Some(extra) = extra {
            logit = finite(sequence_bias::apply(extra.sequence_bias, logit));
            if extra.is_in_prompt {
                logit = finite(encoder_repetition_penalty::apply(encoder, logit));
            }
        }
        let logit = finite(repetition_penalty::apply(repetition, token, logit));
        let logit = finite(frequency_penalty::apply(frequency, token, logit));
        let logit = finite(presence_penalty::apply(presence, token, logit));
        match extra {
            None => logit,
            Some(extra) => {
                let logit = finite(dry::apply(extra.dry, logit));
                finite(exponential_decay_length_penalty::apply(extra.growth, logit))
            }
        }
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
    Ok(state.kept())
}
