//! Speculative decoding by rejection: whether the target accepts a token of a draft, and what comes instead of it.
//!
//! ```text
//! accepted = word * q * P < p * Q * 2**64           # the token has mass p of P in the target, and q of Q in the draft
//! residual = np.maximum(p * Q - q * P, 0)           # of every token
//! ```
//!
//! A token that is not accepted is replaced by one that is drawn from the residual. The text then has the distribution of the
//! target (Leviathan et al., ICML 2023; Chen et al., 2023).
//!
//! Nothing overflows: a mass is at most 2**41 and a total at most 2**63, so the residuals sum to at most P * Q <= 2**126.
//!
//! How it is fast: most tokens are accepted, for which the two parts of the mass are enough. The kept tokens are listed only
//! where one is replaced.

use crate::context::Context;
use crate::error::RowError;
use crate::isa::Isa;
use crate::logit::Logit;
use crate::params::Params;
use crate::recipe::{self, Odds, Scratch};
use crate::rng::Words;

/// What a token is drawn from: a row, how to draw from it, and the random words.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a, T> {
    /// The logits.
    pub row: &'a [T],
    /// The parameters.
    pub params: Params,
    /// What else is known.
    pub context: Context<'a>,
    /// The random words of the position.
    pub words: Words,
}

impl<T: Logit> Source<'_, T> {
    /// Returns a token's part of the mass of the tokens that the parameters keep.
    pub fn part(&self, isa: Isa, token: usize, scratch: &mut Scratch) -> Result<Odds, RowError> {
        recipe::weigh(isa, self.row, &self.params, &self.context, self.words, token, scratch)
    }

    /// Returns the ids and masses of the tokens that the parameters keep, in the order of the ids.
    pub fn masses(&self, isa: Isa, scratch: &mut Scratch) -> Result<Vec<(usize, u64)>, RowError> {
        recipe::masses(isa, self.row, &self.params, &self.context, self.words, scratch)
    }
}

/// Returns the token of a draft if the target accepts it, and otherwise the token that comes instead. `part` is what the
/// draft's own parameters keep of the token.
pub fn next<T: Logit, D: Logit>(
    isa: Isa,
    target: &Source<'_, T>,
    draft: &Source<'_, D>,
    token: usize,
    part: Odds,
    scratch: &mut Scratch,
) -> Result<usize, RowError> {
    if is_accepted(target.part(isa, token, scratch)?, part, target.words.accept) {
        return Ok(token);
    }
    let (drafted, kept) = (draft.masses(isa, scratch)?, target.masses(isa, scratch)?);
    draw_residual(&kept, &drafted, target.words.replace).ok_or(RowError::Changed)
}

/// Returns the token that comes after a draft of which every token was accepted.
pub fn next_after<T: Logit>(isa: Isa, target: &Source<'_, T>, scratch: &mut Scratch) -> Result<usize, RowError> {
    let words = Words { draw: target.words.replace, ..target.words };
    recipe::sample(isa, target.row, &target.params, &target.context, words, scratch)
}

/// Decides whether a token of a draft is accepted, by its parts of the masses of the target and of the draft.
fn is_accepted(target: Odds, draft: Odds, word: u64) -> bool {
    scaled(product(draft.mass, target.total), word) < product(target.mass, draft.total)
}

/// Draws from what is left of the masses of the target without those of the draft; None if nothing is left. Both are in the
/// order of the ids.
fn draw_residual(target: &[(usize, u64)], draft: &[(usize, u64)], word: u64) -> Option<usize> {
    let total = |masses: &[(usize, u64)]| masses.iter().map(|&(_, mass)| mass).sum();
    let (of_target, of_draft): (u64, u64) = (total(target), total(draft));
    let residual = || {
        let mut draft = draft.iter().peekable();
        target.iter().map(move |&(id, p)| {
            while draft.next_if(|other| other.0 < id).is_some() {}
            let q = draft.next_if(|other| other.0 == id).map_or(0, |other| other.1);
            (id, product(p, of_draft).saturating_sub(product(q, of_target)))
        })
    };
    let mut left = scaled(residual().map(|(_, mass)| mass).sum(), word);
    for (id, mass) in residual() {
        if left < mass {
            return Some(id);
        }
        left -= mass;
    }
    None
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// Returns `(number * word) >> 64`.
fn scaled(number: u128, word: u64) -> u128 {
    product((number >> 64) as u64, word) + (product(number as u64, word) >> 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_number_is_the_high_part_of_the_product() {
        for word in [0, 1, 1 << 32, u64::MAX] {
            for number in [0, 1, u128::from(u64::MAX), 1 << 64, (1 << 126) - 1, 1 << 126] {
                let halves = [number >> 32 >> 64, number >> 64 & 0xffff_ffff, number & u128::from(u64::MAX)];
                let product = halves.map(|half| half * u128::from(word));
                let middle = product[1] + (product[2] >> 64);
                assert_eq!(scaled(number, word), (product[0] << 32) + middle);
            }
        }
    }

    #[test]
    fn a_token_is_accepted_for_as_many_words_as_the_ratio_of_its_probabilities() {
        let (third, half) = (Odds { mass: 1, total: 3 }, Odds { mass: 1 << 41, total: 1 << 42 });
        // p / q = 2 / 3
        assert!(is_accepted(third, half, (2 * (u64::MAX as u128 + 1)).div_ceil(3) as u64 - 1));
        assert!(!is_accepted(third, half, (2 * (u64::MAX as u128 + 1)).div_ceil(3) as u64));
        for word in [0, 1 << 63, u64::MAX] {
            assert!(is_accepted(half, third, word));
            assert!(is_accepted(half, half, word));
            assert!(!is_accepted(Odds { mass: 0, total: 3 }, half, word));
        }
    }

    #[test]
    fn the_residual_is_drawn_in_the_order_of_the_ids() {
        let target = [(2, 1 << 41), (5, 1 << 41), (9, 1 << 41)];
        let draft = [(0, 1 << 41), (2, 1 << 40), (5, 1 << 41), (7, 1 << 41)];
        // p * Q - q * P: 2**82 times 2, 0.5 and 3.5, of which all but the draft's own part is left.
        let residual = [2.0, 0.5, 3.5];
        let point = |share: f64| (share / residual.iter().sum::<f64>() * 2f64.powi(64)) as u64;
        assert_eq!(draw_residual(&target, &draft, 0), Some(2));
        assert_eq!(draw_residual(&target, &draft, point(1.99)), Some(2));
        assert_eq!(draw_residual(&target, &draft, point(2.01)), Some(5));
        assert_eq!(draw_residual(&target, &draft, point(2.49)), Some(5));
        assert_eq!(draw_residual(&target, &draft, point(2.51)), Some(9));
        assert_eq!(draw_residual(&target, &draft, u64::MAX), Some(9));
        assert_eq!(draw_residual(&target, &target, 0), None);
    }
}
