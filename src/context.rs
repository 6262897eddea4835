//! What a draw knows beside the logits and the parameters.

/// The tokens before, biases for single tokens, and which tokens are allowed. The default is to know nothing.
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
}

impl<'a> Context<'a> {
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
}
