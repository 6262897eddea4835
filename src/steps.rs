//! The order in which the filters and the temperature are applied to a row.

/// The most steps that an order may have: each of them once.
const MOST: usize = Step::ALL.len();

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

/// An order: some of the steps, each at most once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    steps: [Step; MOST],
    count: usize,
}

impl Steps {
    /// The order in which the filters are applied if no other is asked for.
    pub const DEFAULT: Steps = Steps {
        steps: [
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

    /// Makes an order, or returns None if the steps are too many.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Option<Steps> {
        let mut order = Steps { steps: [Step::Temperature; MOST], count: 0 };
        for step in steps {
            *order.steps.get_mut(order.count)? = step;
            order.count += 1;
        }
        Some(order)
    }

    /// Iterates over the steps.
    pub fn iter(&self) -> impl Iterator<Item = Step> + '_ {
        self.steps[..self.count].iter().copied()
    }

    /// True if one of the steps applies this parameter.
    pub fn apply(&self, parameter: &str) -> bool {
        self.iter().any(|step| step.parameters().contains(&parameter))
    }
}
