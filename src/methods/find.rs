//! What the methods find that look at the order of the history, or at lists of tokens: bans, and what is known of other
//! tokens.
//!
//! How it is fast: it looks at the context alone, in time that depends on the history and not on the row, and it needs no
//! vector code. So it is compiled once, and not for each instruction set.

use super::{dry, exponential_decay_length_penalty, no_repeat_ngram_size, sequence_bias};
use crate::changes::{Changes, Found};
use crate::context::{Context, Rules};
use crate::error::{RowError, reserve};
use crate::lanes::BLOCK;
use crate::params::Params;

/// True if there may be something for [`find`] to find.
#[inline(always)]
pub(super) fn finds_anything(params: &Params, context: &Context<'_>) -> bool {
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
    let Found { repeats, breakers, sequence_biases, repeated } = found;
    sequence_biases.clear();
    reserve(sequence_biases, rules.sequence_bias.len())?;
    sequence_bias::find(rules, context, |id, bias| match bias {
        f64::NEG_INFINITY => changes.ban(id),
        _ => sequence_biases.push((id, bias)),
    });
    repeated.clear();
    if params.no_repeat_ngram_size != 0 {
        repeats.find(context.prompt_ids, context.output_ids)?;
        no_repeat_ngram_size::find(params.no_repeat_ngram_size, repeats, |id| changes.ban(id));
    }
    if params.dry_multiplier != 0.0 {
        if params.no_repeat_ngram_size == 0 || params.dry_penalty_last_n != 0 {
            let (prompt_ids, output_ids) = context.history(params.dry_penalty_last_n);
            repeats.find(prompt_ids, output_ids)?;
        }
        reserve(repeated, repeats.matches().len())?;
        let blocks = if rules.dry_sequence_breakers.is_empty() { 0 } else { tokens.div_ceil(BLOCK) };
        breakers.clear();
        reserve(breakers, blocks)?;
        breakers.resize(blocks, 0);
        for &id in rules.dry_sequence_breakers {
            breakers.get_mut(id as usize / BLOCK).into_iter().for_each(|word| *word |= 1 << (id as usize % BLOCK));
        }
        dry::find(params, breakers, repeats, |id, length| repeated.push((id, length)));
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

/// Returns a power by repeated squaring, each product rounded to float64. What is beyond its range is the largest finite
/// number.
pub(super) fn power(base: f64, exponent: u64) -> f64 {
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
