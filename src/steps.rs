//! The order in which the edits, the temperature and the filters are applied to a row.

/// The most filters that an order may have: each of them once.
const MOST: usize = Step::ALL.len() - EDITS;

/// How many steps are edits.
const EDITS: usize = 8;

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal of $($parameter:literal),+;)*) => {
        /// One thing that is done to a row. Most steps have the name of their parameter. Those that do not are variants of
        /// one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// Every step.
            pub const ALL: &[Step] = &[$(Step::$step,)*];

            /// Returns the name of the step.
            pub fn name(self) -> &'static str {
                match self {
                    $(Step::$step => $name,)*
                }
            }

            /// Returns the names of the parameters that switch the step on.
            pub fn parameters(self) -> &'static [&'static str] {
                match self {
                    $(Step::$step => &[$($parameter),+],)*
                }
            }
        }
    };
}

steps! {
    /// Adds to the logits of single tokens.
    LogitBias = "logit_bias" of "logit_bias";
    /// Adds to the logits of tokens that end a sequence.
    SequenceBias = "sequence_bias" of "sequence_bias";
    /// Makes the tokens of the prompt more likely.
    EncoderRepetitionPenalty = "encoder_repetition_penalty" of "encoder_repetition_penalty";
    /// Makes the tokens of the history less likely.
    RepetitionPenalty = "repetition_penalty" of "repetition_penalty";
    /// Makes the tokens of the output less likely, each time that they are there.
    FrequencyPenalty = "frequency_penalty" of "frequency_penalty";
    /// Makes the tokens of the output less likely.
    PresencePenalty = "presence_penalty" of "presence_penalty";
    /// Makes the tokens less likely that would extend a repeated sequence.
    Dry = "dry" of "dry_multiplier";
    /// Makes the end of a long text more likely.
    ExponentialDecayLengthPenalty = "exponential_decay_length_penalty" of "exponential_decay_length_penalty";
    /// Divides the logits. The filters before it see the probabilities at temperature 1.
    Temperature = "temperature" of "temperature", "dynatemp_range";
    /// Keeps the k largest.
    TopK = "top_k" of "top_k";
    /// Keeps the k largest, and all tokens that tie with the last of them.
    TopKWithTies = "top_k_with_ties" of "top_k";
    /// Keeps the nucleus.
    TopP = "top_p" of "top_p";
    /// Keeps the smallest set of most probable tokens whose mass is more than the share, where `TopP` keeps one with as much.
    TopPBeyond = "top_p_beyond" of "top_p";
    /// Keeps what is probable, relative to the most probable token.
    MinP = "min_p" of "min_p";
    /// Keeps what is as surprising as expected.
    TypicalP = "typical_p" of "typical_p";
    /// Keeps what is probable.
    EpsilonCutoff = "epsilon_cutoff" of "epsilon_cutoff";
    /// Keeps what is probable, relative to the square of the largest probability.
    TopA = "top_a" of "top_a";
    /// Keeps what is probable, and more where the entropy is large.
    EtaCutoff = "eta_cutoff" of "eta_cutoff";
    /// Keeps the logits near the largest one, in standard deviations.
    TopNSigma = "top_n_sigma" of "top_n_sigma";
    /// Keeps what comes before the tail.
    Tfs = "tfs" of "tfs";
    /// Keeps a share of the entropy.
    TopH = "top_h" of "top_h";
    /// Drops the most probable tokens, sometimes.
    Xtc = "xtc" of "xtc_probability";
    /// Keeps the surprise of a text near a target.
    Mirostat = "mirostat" of "mirostat";
    /// Makes the tokens more likely whose probability is near a target. It comes last wherever an order has it.
    AdaptiveP = "adaptive_p" of "adaptive_target";
}

impl Step {
    /// The steps that edit logits, in the order in which they are applied if no other is asked for.
    pub const EDITS: [Step; EDITS] = [
        Step::LogitBias,
        Step::SequenceBias,
        Step::EncoderRepetitionPenalty,
        Step::RepetitionPenalty,
        Step::FrequencyPenalty,
        Step::PresencePenalty,
        Step::Dry,
        Step::ExponentialDecayLengthPenalty,
    ];

    /// True if the step edits logits, before the temperature and the filters.
    pub fn is_edit(self) -> bool {
        Step::EDITS.contains(&self)
    }
}

/// An order: some of the steps, each at most once, and the edits before all others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// All edits: those that the order does not name come first.
    edits: [Step; EDITS],
    filters: [Step; MOST],
    count: usize,
}

impl Steps {
    /// The order in which the steps are applied if no other is asked for.
    pub const DEFAULT: Steps = Steps {
        edits: Step::EDITS,
        filters: [
            Step::Temperature,
            Step::TopK,
            Step::TopP,
            Step::MinP,
            Step::TypicalP,
            Step::EpsilonCutoff,
            Step::TopA,
            Step::EtaCutoff,
            Step::TopNSigma,
            Step::Tfs,
            Step::TopH,
            Step::Xtc,
            Step::Mirostat,
            Step::AdaptiveP,
            Step::TopKWithTies, // which is not counted, and neither is the next one
            Step::TopPBeyond,
        ],
        count: 14,
    };

    /// Makes an order. Returns None if a step is there twice, or an edit after a step that is none.
    pub fn new(steps: &[Step]) -> Option<Steps> {
        let (named, filters) = steps.split_at(steps.iter().take_while(|step| step.is_edit()).count());
        let is_new = |(place, step): (usize, &Step)| !steps[..place].contains(step);
        if filters.iter().any(|step| step.is_edit()) || !steps.iter().enumerate().all(is_new) {
            return None;
        }
        let mut order = Steps { edits: Step::EDITS, filters: [Step::Temperature; MOST], count: filters.len() };
        let others = Step::EDITS.iter().filter(|step| !named.contains(step));
        order.edits.iter_mut().zip(others.chain(named)).for_each(|(edit, &step)| *edit = step);
        order.filters[..filters.len()].copy_from_slice(filters);
        Some(order)
    }

    /// The edits, in their order, or None if that is the default.
    #[inline(always)]
    pub fn edits(&self) -> Option<&[Step]> {
        (self.edits != Step::EDITS).then_some(&self.edits)
    }

    /// Iterates over the temperature and the filters.
    pub fn filters(&self) -> impl Iterator<Item = Step> + '_ {
        self.filters[..self.count].iter().copied()
    }

    /// True if the temperature or one of the filters applies this parameter.
    pub fn filter_by(&self, parameter: &str) -> bool {
        self.filters().any(|step| step.parameters().contains(&parameter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_that_an_order_does_not_name_come_first() {
        let order = Steps::new(&[Step::RepetitionPenalty, Step::LogitBias, Step::TopK, Step::Temperature]).unwrap();
        let others =
            [Step::SequenceBias, Step::EncoderRepetitionPenalty, Step::FrequencyPenalty, Step::PresencePenalty];
        let edits =
            [&others[..], &[Step::Dry, Step::ExponentialDecayLengthPenalty, Step::RepetitionPenalty, Step::LogitBias]];
        assert_eq!(order.edits(), Some(&edits.concat()[..]));
        assert!(order.filters().eq([Step::TopK, Step::Temperature]));
    }

    #[test]
    fn an_order_without_edits_leaves_theirs_as_it_is() {
        for steps in [&[][..], &[Step::TopP], &Step::EDITS, &Step::EDITS[2..]] {
            assert_eq!(Steps::new(steps).unwrap().edits(), None);
        }
        let filters: Vec<Step> = Steps::DEFAULT.filters().collect();
        assert!(Steps::new(&filters).unwrap().filters().eq(filters));
    }

    #[test]
    fn not_every_list_is_an_order() {
        assert_eq!(Steps::new(&[Step::TopP, Step::Dry]), None);
        assert_eq!(Steps::new(&[Step::TopP, Step::MinP, Step::TopP]), None);
        assert!(Steps::new(Step::ALL).is_some());
    }
}
