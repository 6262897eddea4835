//! What a draw says of the token that it draws, and of others: how likely they are, and a rank.
//!
//! ```text
//! logprob = (x - max(logits)) / temperature - log(W / 2**S)       # in float64; W the sum of the masses, as in mass.rs
//! rank    = 1 + np.flatnonzero(order == token)                    # order as in order.rs, of the tokens that are not banned
//! ```
//!
//! The logits are those of the row as it is given, at temperature 1 (raw), or those of the tokens that are kept, at the
//! temperature of the draw (processed).

use crate::kernels::softmax::LogProbability;

/// Which distribution is meant, and which numbers of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mode {
    /// False for the row as it is given, at temperature 1, and true for the distribution that the token is drawn from.
    pub is_processed: bool,
    /// True for logits, divided by the temperature, and false for log-probabilities.
    pub is_logits: bool,
}

/// The places for what is said of the token of one row.
#[derive(Debug)]
pub struct Logprobs<'a> {
    /// What is wanted.
    pub mode: Mode,
    /// The log-probability or logit of the token that is drawn.
    pub logprob: &'a mut f64,
    /// Its place in the total order.
    pub rank: &'a mut i64,
    /// The most probable tokens, the first of them first, and -1 where there are no more.
    pub top_ids: &'a mut [i64],
    /// Their log-probabilities or logits, and -inf. It has the same length.
    pub top_logprobs: &'a mut [f64],
    /// Other tokens that the caller asks for. The row has them.
    pub given_ids: &'a [i64],
    /// Their log-probabilities or logits, and -inf for a token that the distribution does not have. It has the same length.
    pub given_logprobs: &'a mut [f64],
}

impl Logprobs<'_> {
    /// Lends the places for one call.
    pub fn lend(&mut self) -> Logprobs<'_> {
        let Logprobs { mode, logprob, rank, top_ids, top_logprobs, given_ids, given_logprobs } = self;
        Logprobs { mode: *mode, logprob, rank, top_ids, top_logprobs, given_ids, given_logprobs }
    }

    /// Says that there is no answer.
    pub fn clear(&mut self) {
        (*self.logprob, *self.rank) = (f64::NEG_INFINITY, 0);
        self.top_ids.fill(-1);
        self.top_logprobs.fill(f64::NEG_INFINITY);
        self.given_logprobs.fill(f64::NEG_INFINITY);
    }

    /// Describes a token that is certain.
    pub(crate) fn describe_only(&mut self, token: usize, logit: f32) {
        let number = if self.mode.is_logits { f64::from(logit) + 0.0 } else { 0.0 };
        (*self.logprob, *self.rank) = (number, 1);
        self.set_top(std::iter::once(token), |_| number);
        for (given, &id) in self.given_logprobs.iter_mut().zip(self.given_ids) {
            *given = if id as usize == token { number } else { f64::NEG_INFINITY };
        }
    }

    /// Fills in the most probable tokens, given their ids in the total order and the number of each.
    pub(crate) fn set_top(&mut self, ids: impl Iterator<Item = usize>, number: impl Fn(usize) -> f64) {
        self.top_ids.fill(-1);
        self.top_logprobs.fill(f64::NEG_INFINITY);
        for ((place, logprob), id) in self.top_ids.iter_mut().zip(&mut *self.top_logprobs).zip(ids) {
            (*place, *logprob) = (id as i64, number(id));
        }
    }
}

/// Turns the logits of a distribution into the numbers that are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    Logits { temperature: f64 },
    LogProbabilities(LogProbability),
}

impl Numbers {
    /// Returns the number for a logit.
    #[inline(always)]
    pub fn of(self, x: f32) -> f64 {
        let number = match self {
            Numbers::Logits { temperature } => f64::from(x) / temperature,
            Numbers::LogProbabilities(log_probability) => log_probability.of(x),
        };
        number + 0.0 // -0.0 becomes 0.0
    }
}
