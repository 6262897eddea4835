//! The parameters of a row, and their ranges.
//!
//! One table declares them: a line there is a field of [`Params`] with its default, the rule that its values obey, and an
//! entry of [`TABLE`], by which the Python bindings read the parameter. `_parameters.py` has the same table for Python.

use std::fmt;

use crate::steps::Steps;

/// A line of the table, for a caller that finds parameters by their names.
#[derive(Debug)]
pub struct Parameter {
    /// The name of the parameter, which is the same everywhere.
    pub name: &'static str,
    /// True if it edits the logits before they are rounded to float32.
    pub is_edit: bool,
    /// How to check a value and put it into its place.
    pub set: Set,
    /// Returns its value.
    pub get: fn(&Params) -> f64,
}

impl Parameter {
    /// True if it does nothing.
    pub fn is_off(&self, params: &Params) -> bool {
        (self.get)(params) == (self.get)(&Params::default())
    }
}

/// How to check a value of a parameter and put it into its place.
#[derive(Debug)]
pub enum Set {
    /// A real number.
    Real(fn(f64) -> bool, fn(&mut Params, f64)),
    /// An integer that is not negative.
    Count(fn(u64) -> bool, fn(&mut Params, u64)),
}

macro_rules! table {
    (@type real) => { f64 };
    (@type count) => { u64 };
    (@is edit) => { true };
    (@is filter) => { false };
    (@set real, $name:ident, $holds:expr) => { Set::Real($holds, |params, value| params.$name = value) };
    (@set count, $name:ident, $holds:expr) => { Set::Count($holds, |params, value| params.$name = value) };
    ($($(#[$doc:meta])* $step:ident $kind:ident $name:ident = $default:literal, $rule:literal, $holds:expr;)*) => {
        /// What to do with a row, in the order in which it is done. The default changes nothing and keeps everything.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Params {
            $($(#[$doc])* pub $name: table!(@type $kind),)*
            /// The order of the edits, the temperature and the filters. None stands for [`Steps::DEFAULT`].
            pub order: Option<Steps>,
            /// The surprise in bits that mirostat aims at for this token; None stands for twice `mirostat_tau`.
            pub mirostat_mu: Option<f64>,
            /// How probable the tokens drawn before were on average; None stands for `adaptive_target`.
            pub adaptive_average: Option<f64>,
        }

        impl Default for Params {
            fn default() -> Self {
                Params { $($name: $default,)* order: None, mirostat_mu: None, adaptive_average: None }
            }
        }

        impl Params {
            /// Returns an error that names the first parameter out of its range.
            pub fn validate(&self) -> Result<(), ParamError> {
                $(if !$holds(self.$name) {
                    return Err(ParamError::new(stringify!($name), $rule, self.$name as f64));
                })*
                match (self.mirostat_mu, self.adaptive_average) {
                    (Some(mu), _) if !is_mu(mu) => Err(ParamError::new("mirostat_mu", "in [-1e30, 1e30]", mu)),
                    (_, Some(p)) if !is_share(p) => Err(ParamError::new("adaptive_average", "in [0, 1]", p)),
                    _ => Ok(()),
                }
            }
        }

        /// All parameters, in the order in which they are applied.
        pub static TABLE: &[Parameter] = &[
            $(Parameter {
                name: stringify!($name),
                is_edit: table!(@is $step),
                set: table!(@set $kind, $name, $holds),
                get: |params| params.$name as f64,
            },)*
        ];
    };
}

table! {
    /// Divide positive logits of the tokens in the history by it, and multiply the others. 1 is off.
    edit real repetition_penalty = 1.0, "in [1e-30, 1e30]", is_factor;
    /// Subtract it from the logit of a token, times the number of times that the token was put out. 0 is off.
    edit real frequency_penalty = 0.0, "in [-1e30, 1e30]", is_term;
    /// Subtract it from the logit of each token that was put out. 0 is off.
    edit real presence_penalty = 0.0, "in [-1e30, 1e30]", is_term;
    /// The penalties look at this many tokens of the history, the last ones. 0 stands for all of them.
    edit count penalty_window = 0, "in [0, 2**64)", any;
    /// Multiply positive logits of the tokens in the prompt by it, and divide the others. 1 is off.
    edit real encoder_repetition_penalty = 1.0, "in [1e-30, 1e30]", is_factor;
    /// Ban each token that would repeat a sequence of so many tokens. 0 is off.
    edit count no_repeat_ngram_size = 0, "in [0, 2**64)", any;
    /// Subtract it, times a power of `dry_base`, from the logit of each token that would extend a repeated sequence. 0 is off.
    edit real dry_multiplier = 0.0, "in [0, 1e30]", is_multiplier;
    /// How much the subtracted number grows with each token of the repeated sequence.
    edit real dry_base = 1.75, "in [1, 1e30]", is_base;
    /// Repeated sequences of fewer tokens may be extended.
    edit count dry_allowed_length = 2, "in [1, 2**64)", is_positive;
    /// Sequences are looked for in this many tokens of the history, the last ones. 0 stands for all of them.
    edit count dry_penalty_last_n = 0, "in [0, 2**64)", any;
    /// The output has at least this many tokens before a token that ends the text is allowed.
    edit count min_new_tokens = 0, "in [0, 2**64)", any;
    /// The number of tokens after which the caller ends the text. 0 if it is not known.
    edit count max_new_tokens = 0, "in [0, 2**64)", any;
    /// The logits are divided by it: in [1e-30, 1e30], or 0, which is greedy: the lowest id among the largest logits.
    filter real temperature = 1.0, "0 or in [1e-30, 1e30]", is_temperature;
    /// How far the temperature follows the entropy, up and down. 0 is off.
    filter real dynatemp_range = 0.0, "in [0, 1e30]", is_size;
    /// The power of the share of the largest entropy that the temperature follows.
    filter real dynatemp_exponent = 1.0, "in [0, 1e30]", is_size;
    /// Keep the k largest. 0 is off.
    filter count top_k = 0, "in [0, 2**64)", any;
    /// Keep the smallest set of most probable tokens whose mass is at least this share, and at least one token. 1 is off.
    filter real top_p = 1.0, "in [0, 1]", is_share;
    /// Keep the tokens at least this many times as probable as the most probable one. 0 is off.
    filter real min_p = 0.0, "in [0, 1]", is_share;
    /// Keep the tokens whose surprise is nearest to the entropy, until they have this share of the mass. 1 is off.
    filter real typical_p = 1.0, "in [0, 1]", is_share;
    /// Keep the tokens with at least this probability. 0 is off.
    filter real epsilon_cutoff = 0.0, "in [0, 1]", is_share;
    /// Keep the tokens with at least this many times the square of the largest probability. 0 is off.
    filter real top_a = 0.0, "in [0, 1]", is_share;
    /// Keep the tokens with at least this probability, or less where the entropy is large. 0 is off.
    filter real eta_cutoff = 0.0, "in [0, 1]", is_share;
    /// Keep the tokens whose logit is at most so many standard deviations below the largest one. 0 is off.
    filter real top_n_sigma = 0.0, "in [0, 1e30]", is_multiple;
    /// Keep the tokens before the tail, where this share of the bends of the sorted probabilities is behind. 1 is off.
    filter real tfs = 1.0, "in [0, 1]", is_share;
    /// Keep the most probable tokens as long as they have at most this share of the entropy of the first 100. 0 is off.
    filter real top_h = 0.0, "in [0, 1]", is_share;
    /// Each filter keeps at least this many tokens, or all that were kept before it if these are fewer.
    filter count min_tokens_to_keep = 1, "in [0, 2**64)", any;
    /// How often `xtc` drops the most probable tokens. 0 is off.
    filter real xtc_probability = 0.0, "in [0, 1]", is_share;
    /// The tokens that `xtc` may drop have at least this probability.
    filter real xtc_threshold = 0.1, "in [0, 1]", is_share;
    /// The version of mirostat. 0 is off.
    filter count mirostat = 0, "0, 1 or 2", is_version;
    /// The surprise in bits that mirostat aims at.
    filter real mirostat_tau = 5.0, "in [0, 1000]", is_surprise;
    /// How fast a sampler corrects its aim, between two draws.
    filter real mirostat_eta = 0.1, "in [0, 1]", is_share;
    /// The probability that adaptive-p aims at. -1 is off.
    filter real adaptive_target = -1.0, "in [0, 1], or -1", is_target;
    /// How much the average that adaptive-p looks at keeps of its past with each token.
    filter real adaptive_decay = 0.9, "in [0, 1]", is_share;
    /// How much the distance of a logit from the largest one counts. 0 is off.
    filter real smoothing_factor = 0.0, "in [0, 1e30]", is_size;
    /// From 1, where the square of the distance counts, to 3, where its cube does.
    filter real smoothing_curve = 1.0, "in [1, 3]", is_curve;
}

// Beyond these bounds the difference of two float32 logits, or its product with the inverse of the temperature, may leave the
// range of float32, and the masses would not be those of the softmax.
pub(crate) fn is_temperature(t: f64) -> bool {
    t == 0.0 || (1e-30..=1e30).contains(&t)
}

// These bounds only keep the logits, which are float32, from becoming infinite or NaN by themselves.
fn is_factor(p: f64) -> bool {
    (1e-30..=1e30).contains(&p)
}

fn is_size(p: f64) -> bool {
    (0.0..=1e30).contains(&p)
}

fn is_term(p: f64) -> bool {
    (-1e30..=1e30).contains(&p)
}

fn is_multiplier(m: f64) -> bool {
    (0.0..=1e30).contains(&m)
}

fn is_base(b: f64) -> bool {
    (1.0..=1e30).contains(&b)
}

pub(crate) fn is_share(p: f64) -> bool {
    (0.0..=1.0).contains(&p)
}

fn is_target(p: f64) -> bool {
    is_share(p) || p == -1.0
}

fn is_positive(n: u64) -> bool {
    n > 0
}

fn is_multiple(n: f64) -> bool {
    (0.0..=1e30).contains(&n)
}

fn is_version(n: u64) -> bool {
    n <= 2
}

fn is_surprise(bits: f64) -> bool {
    (0.0..=1000.0).contains(&bits)
}

fn is_curve(c: f64) -> bool {
    (1.0..=3.0).contains(&c)
}

pub(crate) fn is_mu(bits: f64) -> bool {
    (-1e30..=1e30).contains(&bits)
}

fn any(_: u64) -> bool {
    true
}

/// A parameter out of its range.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamError {
    name: &'static str,
    rule: &'static str,
    value: f64,
}

impl ParamError {
    fn new(name: &'static str, rule: &'static str, value: f64) -> Self {
        ParamError { name, rule, value }
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug prints a float64 as Python does: 1.5, 2.0, inf.
        let value = if self.value.is_nan() { "nan".to_string() } else { format!("{:?}", self.value) };
        write!(f, "{} must be {}, got {value}", self.name, self.rule)
    }
}

impl std::error::Error for ParamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_parameter_the_rule_and_the_value() {
        let wrong = |params: Params| params.validate().unwrap_err().to_string();
        let ok = Params::default();
        assert_eq!(ok.validate(), Ok(()));
        assert_eq!(wrong(Params { top_p: 1.5, ..ok }), "top_p must be in [0, 1], got 1.5");
        assert_eq!(wrong(Params { temperature: f64::NAN, ..ok }), "temperature must be 0 or in [1e-30, 1e30], got nan");
        assert_eq!(wrong(Params { min_p: -0.5, ..ok }), "min_p must be in [0, 1], got -0.5");
    }

    #[test]
    fn the_table_sets_the_field_of_the_same_name() {
        for parameter in TABLE {
            let (mut params, default) = (Params::default(), format!("{:?}", Params::default()));
            match parameter.set {
                Set::Real(_, set) => set(&mut params, 0.25),
                Set::Count(_, set) => set(&mut params, 7),
            }
            let changed = format!("{params:?}");
            assert!(changed != default && changed.contains(&format!("{}: ", parameter.name)), "{changed}");
        }
    }
}
