//! What a draw knows beside the logits and the parameters.

/// The tokens before, biases for single tokens, which tokens are allowed, and other rules. The default is to know nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Token ids, each at most once, and what to add to their logits: finite, or -inf.
    pub biases: &'a [(u32, f32)],
    /// The token ids of the prompt.
    pub prompt_ids: &'a [u32],
    /// The token ids that were drawn after the prompt.
    pub output_ids: &'a [u32],
    /// Bit v % 32 of word v / 32 is set if token v is allowed. A token that has no bit is not.
    pub bitmask: Option<&'a [u32]>,
    /// What else there is to know of some tokens.
    pub rules: Option<Rules<'a>>,
}

/// Rules for some of the tokens. The default has none. A token id that the row does not have is ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// The only tokens that are allowed.
    pub allowed_token_ids: Option<&'a [u32]>,
    /// Tokens that are banned.
    pub suppress_tokens: &'a [u32],
    /// Tokens that are banned while the output is empty.
    pub begin_suppress_tokens: &'a [u32],
    /// The tokens that end a text.
    pub eos_token_ids: &'a [u32],
    /// The only token that is allowed while the output is empty.
    pub forced_bos_token_id: Option<u32>,
    /// The only token that is allowed as the last one of `max_new_tokens`.
    pub forced_eos_token_id: Option<u32>,
    /// Sequences of tokens, and what to add to the logit of the last one where the history ends with the others: finite, or
    /// -inf.
    pub sequence_bias: &'a [(Vec<u32>, f64)],
    /// Sequences of tokens of which the last one is banned where the history ends with the others.
    pub bad_words_ids: &'a [Vec<u32>],
    /// Tokens at which the matches of DRY end.
    pub dry_sequence_breakers: &'a [u32],
    /// A number of output tokens and a factor, by which the end of a longer output becomes more likely with each token.
    pub exponential_decay_length_penalty: Option<(u64, f64)>,
    /// Tokens that XTC must not drop: it then drops nothing.
    pub xtc_exempt_token_ids: &'a [u32],
}

impl<'a> Context<'a> {
    /// True if nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        !self.edits_logits() && self.bitmask.is_none() && self.rules.is_none()
    }

    /// Returns the tokens that XTC must not drop.
    pub(crate) fn xtc_exempt_token_ids(&self) -> &'a [u32] {
        self.rules.map_or(&[], |rules| rules.xtc_exempt_token_ids)
    }

    /// True if there are tokens whose logits it edits.
    pub(crate) fn edits_logits(&self) -> bool {
        !(self.biases.is_empty() && self.prompt_ids.is_empty() && self.output_ids.is_empty())
    }

    /// Returns the prompt and the output as far as they are among the last `window` tokens. 0 stands for all of them.
    pub(crate) fn history(&self, window: u64) -> (&'a [u32], &'a [u32]) {
        if window == 0 {
            return (self.prompt_ids, self.output_ids);
        }
        let last = |ids: &'a [u32], count: usize| &ids[ids.len() - count.min(ids.len())..];
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let output = last(self.output_ids, window);
        (last(self.prompt_ids, window - output.len()), output)
    }

    /// True if the last tokens of the prompt and the output are these.
    pub(crate) fn ends_with(&self, ids: &[u32]) -> bool {
        let (of_prompt, of_output) = ids.split_at(ids.len().saturating_sub(self.output_ids.len()));
        self.output_ids.ends_with(of_output) && self.prompt_ids.ends_with(of_prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_with_the_last_token_of_the_output() {
        let context = Context { prompt_ids: &[1, 2, 3], output_ids: &[4, 5], ..Context::default() };
        assert_eq!(context.history(0), (&[1, 2, 3][..], &[4, 5][..]));
        assert_eq!(context.history(1), (&[][..], &[5][..]));
        assert_eq!(context.history(3), (&[3][..], &[4, 5][..]));
        assert_eq!(context.history(u64::MAX), (&[1, 2, 3][..], &[4, 5][..]));
    }

    #[test]
    fn the_end_of_a_history_may_begin_in_the_prompt() {
        let context = Context { prompt_ids: &[1, 2, 3], output_ids: &[4, 5], ..Context::default() };
        for ids in [&[][..], &[5], &[4, 5], &[3, 4, 5], &[1, 2, 3, 4, 5]] {
            assert!(context.ends_with(ids), "{ids:?}");
        }
        for ids in [&[4][..], &[3, 5], &[3], &[2, 4, 5], &[0, 1, 2, 3, 4, 5]] {
            assert!(!context.ends_with(ids), "{ids:?}");
        }
    }
}
