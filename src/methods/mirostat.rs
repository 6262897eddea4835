//! Mirostat: keeps the surprise of a text near a target. Each token is drawn from those that are not too surprising, and after
//! the draw the sampler corrects the limit, mu, by how far the token was from the target.
//!
//! ```text
//! version 2:
//! least = ceil(2.0 ** -clip(mu, 0, 1000) * float64(W))        # W is the mass of what was kept before
//! kept  = order[mass[order] >= min(max(least, 1), mass[order[0]])]    # order: the tokens that were kept before
//!
//! version 1, where N is the number of tokens of the row:
//! b     = np.diff(surprise[order[:100]]) / 2**22              # in bits; surprise as in kernels/surprise.rs
//! t     = log2([2/1, 3/2, 4/3, ...])
//! s     = (t * b).sum() / (t * t).sum()                       # the exponent of Zipf's law; at least 2**-40
//! k     = 2.0 ** clip((mu + log2((s - 1) / (1 - N ** (1 - s)))) / s, 0, 62)
//! kept  = order[: int(k)]
//! ```
//!
//! S. Basu, G. S. Ramachandran, N. S. Keskar, L. R. Varshney, "Mirostat: a neural text decoding algorithm that directly
//! controls perplexity" (ICLR 2021), which is version 1. Version 2 is from the authors' repository, and both are in llama.cpp.
//!
//! Edge rules: the first token that was kept before stays, and in version 2 so do those that tie with it. Where s is within
//! 2**-20 of 1, the fraction is its limit 1 / ln N. The fraction is rounded to a multiple of 2**-56. 0 is off.

use crate::error::RowError;
use crate::kernels::series::{exp2, ln, log2};
use crate::params::Params;
use crate::row::Row;
use crate::search::State;

/// The exponent is estimated from this many tokens.
const SAMPLE: usize = 100;

#[inline(always)]
pub(super) fn apply<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<(), RowError> {
    if params.mirostat == 0 { Ok(()) } else { keep(params, state) }
}

/// Applies the version that is on.
#[inline(never)]
fn keep<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<(), RowError> {
    let mu = params.mirostat_mu.unwrap_or(2.0 * params.mirostat_tau);
    if params.mirostat == 1 {
        return keep_first(mu, state);
    }
    let share = exp2(-mu.clamp(0.0, 1000.0));
    state.keep_at_least(&|_, total| share * total)
}

/// Applies version 1.
fn keep_first<R: Row>(mu: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    let mut surprises = [0; SAMPLE];
    let count = state.first_surprises(&mut surprises)?;
    if count <= 1 {
        return Ok(());
    }
    let (mut products, mut squares) = (0.0, 0.0);
    for (place, pair) in surprises[..count].windows(2).enumerate() {
        let bits = f64::from(pair[1].saturating_sub(pair[0])) / f64::from(1 << 22);
        let ratio = log2(place as u64 + 2) - log2(place as u64 + 1);
        products += ratio * bits;
        squares += ratio * ratio;
    }
    let s = (products / squares).max(1.0 / (1u64 << 40) as f64);
    let power = (mu + log2_of_factor(s - 1.0, state.tokens() as u64)) / s;
    let k = exp2(power.clamp(0.0, 62.0)) as usize;
    state.keep_first(k, false)
}

/// Returns the binary logarithm of excess / (1 - tokens ** -excess), for at least two tokens.
fn log2_of_factor(excess: f64, tokens: u64) -> f64 {
    let factor = match excess.abs() < 1.0 / f64::from(1 << 20) {
        true => 1.0 / ln(tokens),
        false => excess / (1.0 - exp2((-excess * log2(tokens)).clamp(-1000.0, 1000.0))),
    };
    log2((factor * (1u64 << 56) as f64).round_ties_even() as u64) - 56.0
}
