//! The methods, one file for each. There are two kinds:
//!
//! - A method that changes logits, of some tokens or of all, is a function from a logit, and what is known of its token, to
//!   the new logit.
//! - A filter drops tokens, or gives those that are left other masses. It sees only the `State` (`search/`).
//!
//! No method knows another. The bitmask is not here, because it is applied in the first pass over the row (`row.rs`). Methods
//! that only ban tokens are lines of `find.rs`.

mod adaptive_p;
mod dry;
mod encoder_repetition_penalty;
mod epsilon_cutoff;
mod eta_cutoff;
mod exponential_decay_length_penalty;
mod find;
mod frequency_penalty;
mod logit_bias;
mod min_p;
mod mirostat;
mod no_repeat_ngram_size;
mod presence_penalty;
mod repetition_penalty;
mod sequence_bias;
pub(crate) mod smoothing;
mod temperature;
mod tfs;
mod top_a;
mod top_h;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical_p;
mod xtc;

pub(crate) use find::find;

use crate::changes::{Extra, Token};
use crate::context::Context;
use crate::error::RowError;
use crate::kernels::mass::Mass;
use crate::params::Params;
use crate::row::Row;
use crate::search::{Kept, Search, State};
use crate::steps::{Step, Steps};

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
    (context.bitmask.is_some() || context.edits_logits() || find::finds_anything(params, known)).then_some(context)
}

/// Changes a logit. A banned token stays banned, and what is beyond the range of float32 becomes the largest or the smallest
/// finite number.
#[derive(Clone, Copy)]
pub(crate) struct Edit<'a> {
    encoder: f32,
    repetition: f32,
    frequency: f32,
    presence: f32,
    order: Option<&'a [Step]>,
}

impl<'a> Edit<'a> {
    #[inline(always)]
    pub fn new(params: &'a Params) -> Self {
        Edit {
            encoder: params.encoder_repetition_penalty as f32,
            repetition: params.repetition_penalty as f32,
            frequency: params.frequency_penalty as f32,
            presence: params.presence_penalty as f32,
            order: params.order.as_ref().and_then(Steps::edits),
        }
    }

    /// The order of the edits, or None if that is the default.
    #[inline(always)]
    pub fn order(self) -> Option<&'a [Step]> {
        self.order
    }

    /// Applies the edits in the default order.
    #[inline(always)]
    pub fn apply(self, logit: f32, token: Token, extra: Option<Extra>) -> f32 {
        if logit == f32::NEG_INFINITY {
            return logit;
        }
        let mut logit = finite(logit_bias::apply(token.bias, logit));
        if let Some(extra) = extra {
            logit = finite(sequence_bias::apply(extra.sequence_bias, logit));
            if extra.is_in_prompt {
                logit = finite(encoder_repetition_penalty::apply(self.encoder, logit));
            }
        }
        let logit = finite(repetition_penalty::apply(self.repetition, token, logit));
        let logit = finite(frequency_penalty::apply(self.frequency, token, logit));
        let logit = finite(presence_penalty::apply(self.presence, token, logit));
        match extra {
            None => logit,
            Some(extra) => {
                let logit = finite(dry::apply(extra.dry, logit));
                finite(exponential_decay_length_penalty::apply(extra.growth, logit))
            }
        }
    }

    /// Applies the edits in another order.
    pub fn apply_in_order(self, order: &[Step], logit: f32, token: Token, extra: Extra) -> f32 {
        if logit == f32::NEG_INFINITY {
            return logit;
        }
        order.iter().fold(logit, |logit, step| {
            finite(match step {
                Step::LogitBias => logit_bias::apply(token.bias, logit),
                Step::SequenceBias => sequence_bias::apply(extra.sequence_bias, logit),
                Step::EncoderRepetitionPenalty if extra.is_in_prompt => {
                    encoder_repetition_penalty::apply(self.encoder, logit)
                }
                Step::RepetitionPenalty => repetition_penalty::apply(self.repetition, token, logit),
                Step::FrequencyPenalty => frequency_penalty::apply(self.frequency, token, logit),
                Step::PresencePenalty => presence_penalty::apply(self.presence, token, logit),
                Step::Dry => dry::apply(extra.dry, logit),
                Step::ExponentialDecayLengthPenalty => exponential_decay_length_penalty::apply(extra.growth, logit),
                _ => logit, // a token that is not in the prompt
            })
        })
    }
}

#[inline(always)]
fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

/// Applies the temperature and the filters in their order, at a temperature that is not 0. Returns which tokens are kept, or
/// None if all are, and what their masses are. `word` is the random word of the filters, and `xtc_exempt` has the tokens that
/// XTC must not drop.
#[inline(always)]
pub(crate) fn keep<R: Row>(
    row: &R,
    params: &Params,
    word: u64,
    xtc_exempt: &[u32],
    search: &mut Search,
) -> Result<(Mass, Option<Kept>), RowError> {
    if params.order.is_some() || params.min_tokens_to_keep > 1 {
        return keep_in_order(State::all(*row, 1.0, search), params, word, xtc_exempt);
    }
    let is_dynamic = params.dynatemp_range > 0.0;
    let mut state = State::all(*row, if is_dynamic { 1.0 } else { params.temperature }, search);
    if is_dynamic {
        temperature::apply(params, &mut state)?;
    }
    // These are plain statements, because a loop over the steps costs a short row 300 instructions.
    top_k::apply(params.top_k, false, &mut state)?;
    top_p::apply(params.top_p, false, &mut state)?;
    min_p::apply(params.min_p, &mut state)?;
    typical_p::apply(params.typical_p, &mut state)?;
    epsilon_cutoff::apply(params.epsilon_cutoff, &mut state)?;
    top_a::apply(params.top_a, &mut state)?;
    eta_cutoff::apply(params.eta_cutoff, &mut state)?;
    top_n_sigma::apply(params.top_n_sigma, &mut state)?;
    tfs::apply(params.tfs, &mut state)?;
    top_h::apply(params.top_h, &mut state)?;
    xtc::apply(params, word, xtc_exempt, &mut state)?;
    mirostat::apply(params, &mut state)?;
    adaptive_p::apply(params, &mut state)?;
    Ok(state.kept())
}

/// Applies the steps of an order to a row at temperature 1. Each of them keeps some tokens in any case.
fn keep_in_order<R: Row>(
    mut state: State<'_, R>,
    params: &Params,
    word: u64,
    xtc_exempt: &[u32],
) -> Result<(Mass, Option<Kept>), RowError> {
    state.keep_in_any_case(usize::try_from(params.min_tokens_to_keep).unwrap_or(usize::MAX));
    for step in params.order.unwrap_or(Steps::DEFAULT).filters() {
        state.begin_step()?;
        match step {
            Step::Temperature => temperature::apply(params, &mut state)?,
            Step::TopK => top_k::apply(params.top_k, false, &mut state)?,
            Step::TopKWithTies => top_k::apply(params.top_k, true, &mut state)?,
            Step::TopP => top_p::apply(params.top_p, false, &mut state)?,
            Step::TopPBeyond => top_p::apply(params.top_p, true, &mut state)?,
            Step::MinP => min_p::apply(params.min_p, &mut state)?,
            Step::TypicalP => typical_p::apply(params.typical_p, &mut state)?,
            Step::EpsilonCutoff => epsilon_cutoff::apply(params.epsilon_cutoff, &mut state)?,
            Step::TopA => top_a::apply(params.top_a, &mut state)?,
            Step::EtaCutoff => eta_cutoff::apply(params.eta_cutoff, &mut state)?,
            Step::TopNSigma => top_n_sigma::apply(params.top_n_sigma, &mut state)?,
            Step::Tfs => tfs::apply(params.tfs, &mut state)?,
            Step::TopH => top_h::apply(params.top_h, &mut state)?,
            Step::Xtc => xtc::apply(params, word, xtc_exempt, &mut state)?,
            Step::Mirostat => mirostat::apply(params, &mut state)?,
            _ => (), // adaptive-p comes last, and an edit is not among the filters
        }
        state.end_step();
    }
    adaptive_p::apply(params, &mut state)?;
    Ok(state.kept())
}
