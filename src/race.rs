//! Draws a token by a race between the tokens that are kept, so that similar rows give the same token more often.
//!
//! ```text
//! word = philox4x64(key=(seed, 0), counter=(position, stream, 1 + id // 4, 0))[id % 4]   # each token has its own
//! time = max(1, floor((64 - log2(max(word, 1))) * 2**46))
//! token = argmin(time / mass)                   # the lowest id among equal ones; compared as integers
//! ```
//!
//! The times are exponentially distributed, so the probability of a token is its share of the mass (Gumbel's trick, without its
//! second logarithm). In an ordinary draw, a token that becomes more probable moves all tokens after it on the line of masses.
//! Here it only wins more races.
//!
//! How it is fast: most tokens lose for certain, by a bound that takes no logarithm.

use crate::error::RowError;
use crate::isa::Isa;
use crate::kernels::series::log2;
use crate::logit::Logit;
use crate::recipe::Scratch;
use crate::rng::{Place, philox4x64};
use crate::speculation::Source;

/// A time is in units of 2**-46 of the time in which a word of 2**63 arrives.
const UNIT: f64 = (1u64 << 46) as f64;

/// Returns the token that wins the race at a place.
pub fn race<T: Logit>(
    isa: Isa,
    source: &Source<'_, T>,
    place: Place,
    scratch: &mut Scratch,
) -> Result<usize, RowError> {
    winner(source.masses(isa, scratch)?, place).ok_or(RowError::Changed)
}

/// Returns the winner of tokens in the order of their ids, or None if none of them has a mass.
fn winner(masses: impl IntoIterator<Item = (usize, u64)>, place: Place) -> Option<usize> {
    let mut first: Option<(usize, u64, u64)> = None;
    let (mut block, mut words) = (usize::MAX, [0; 4]);
    for (id, mass) in masses.into_iter().filter(|&(_, mass)| mass > 0) {
        if block != id / 4 {
            block = id / 4;
            words = philox4x64([place.seed, 0], [place.position, place.stream, 1 + block as u64, 0]);
        }
        let word = words[id % 4];
        if let Some((_, time, other)) = first
            && least_time(word) * other as f64 > time as f64 * mass as f64 * 1.001
        {
            continue;
        }
        let new = time(word);
        if first
            .is_none_or(|(_, time, other)| u128::from(new) * u128::from(other) < u128::from(time) * u128::from(mass))
        {
            first = Some((id, new, mass));
        }
    }
    first.map(|(id, _, _)| id)
}

/// Returns the time at which a token with this word arrives if its mass is 1.
fn time(word: u64) -> u64 {
    (((64.0 - log2(word.max(1))) * UNIT) as u64).max(1)
}

/// Returns a number below `time(word)`: -log2(u) is at least 1 - u, and its rounding errors are less than 16 units.
fn least_time(word: u64) -> f64 {
    (u64::MAX - word) as f64 * (UNIT / 2f64.powi(64)) - 16.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_below_the_time() {
        for step in 0..=2_000u64 {
            for word in [u64::MAX - step, u64::MAX - step * step * 1_000_003, step, u64::MAX / 2_000 * step] {
                assert!(least_time(word) < time(word) as f64, "{word}");
            }
        }
        assert_eq!([time(0), time(1), time(1 << 63), time(u64::MAX)], [64 << 46, 64 << 46, 1 << 46, 1]);
    }
}
