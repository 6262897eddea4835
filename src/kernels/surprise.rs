//! Computes how surprising a token is, and the sum of that over the tokens of a prefix, as integers.
//!
//! ```text
//! t        = np.maximum((x - max(row)) * scale + 4, -60)      # float32, as in mass.rs, on a grid of 2**-22 or coarser
//! surprise = (4 - t) * 2**22                                  # an integer in [0, 2**28]
//! W        = mass.sum()
//! mean     = (2 * (mass * surprise).sum() + W) // (2 * W)     # rounded to the nearest integer
//! ```
//!
//! The surprise of a token is the logarithm of its probability, negated and less that of the most probable token, in units of
//! 2**-22 bits. The mean surprise is then the entropy, less the same constant. So what a filter needs of the entropy is a
//! quotient of two sums of integers, and no logarithm is computed.
//!
//! Edge rule: a token without mass counts for nothing in the sums.
//!
//! How it is fast: a mass has up to 42 bits, and its product with a surprise up to 63, of which 64 could not be summed in 64
//! bits. The mass is split into two halves, each of which gives a product of two 32-bit integers. In most blocks no mass has
//! more than 22 bits, and one product is enough.

use super::mass::{Mass, S};
use super::order::{self, Prefix};
use super::series::log2;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Sums over the tokens of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// The mass of all tokens.
    pub mass: u64,
    /// The sum of mass times surprise.
    pub surprise: u128,
}

impl Moments {
    /// Returns the mean surprise, or None if no token has a mass.
    #[inline(always)]
    pub fn mean(self) -> Option<u32> {
        let mass = u128::from(self.mass);
        (2 * self.surprise + mass).checked_div(2 * mass).map(|mean| mean as u32)
    }

    /// Returns the entropy in bits, or None if no token has a mass.
    #[inline(always)]
    pub fn entropy(self) -> Option<f64> {
        let mean = self.surprise as f64 / self.mass as f64 / f64::from(1 << 22);
        (self.mass > 0).then(|| log2(self.mass) - f64::from(S) + mean)
    }
}

/// Sums over the tokens up to `last`.
#[inline(always)]
pub fn of_row<R: Row>(row: &R, mass: Mass, last: u64) -> Moments {
    R::Isa::run(move || {
        let is_all = last == order::end(row.tokens());
        let prefix = Prefix::to(last);
        let mut buffer = Buffer::new();
        let (mut sums, tiny) = (Moments::default(), mass.logit_of_at_most(TINY));
        for (index, &maximum) in row.maxima().iter().enumerate() {
            if maximum < prefix.floor(index) {
                continue;
            }
            let block = row.block(index, &mut buffer);
            let weights = mass.weights(block);
            let weights = if is_all { weights } else { prefix.keep::<R::Isa>(&weights, block, index) };
            let surprises = mass.surprises(block);
            let (total, moment) =
                if maximum <= tiny { of_tiny(&weights, &surprises) } else { of_any(&weights, &surprises) };
            sums.mass += total;
            sums.surprise += moment;
        }
        sums
    })
}

/// The bits of the lower half of a mass.
const HALF: u32 = 21;

/// Weights of up to 2**TINY are rounded to integers by adding a number that leaves an integer in the low bits of a float32.
const TINY: u32 = 22;

/// The sums of a block.
#[inline(always)]
fn of_any(weights: &[f32; BLOCK], surprises: &[u32; BLOCK]) -> (u64, u128) {
    let (mut total, mut high, mut low) = (0, 0, 0);
    for (&weight, &surprise) in weights.iter().zip(surprises) {
        let mass = Mass::rounded(weight);
        total += mass;
        high += (mass >> HALF) as u32 as u64 * u64::from(surprise);
        low += (mass & ((1 << HALF) - 1)) as u32 as u64 * u64::from(surprise);
    }
    (total, (u128::from(high) << HALF) + u128::from(low))
}

/// The sums of a block in which no weight is above 2**TINY.
#[inline(always)]
fn of_tiny(weights: &[f32; BLOCK], surprises: &[u32; BLOCK]) -> (u64, u128) {
    const ROUND: f32 = (1 << 23) as f32;
    let (mut total, mut moment) = (0u32, 0);
    for (&weight, &surprise) in weights.iter().zip(surprises) {
        let mass = (weight + ROUND).to_bits() - ROUND.to_bits();
        total += mass;
        moment += u64::from(mass) * u64::from(surprise);
    }
    (u64::from(total), u128::from(moment))
}

/// Sums over tokens, which are given by their keys and masses.
#[inline(always)]
pub fn of_tokens(tokens: impl Iterator<Item = (u64, u64)>, mass: Mass) -> Moments {
    let mut sums = Moments::default();
    for (key, token_mass) in tokens {
        sums.mass += token_mass;
        sums.surprise += u128::from(token_mass) * u128::from(mass.surprise(order::logit(key)));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;
    use crate::row::Plain;

    #[test]
    fn the_sums_of_a_row_are_those_of_its_tokens() {
        for temperature in [0.1, 0.3, 1.0, 50.0] {
            let logits: Vec<f32> = (0..1000).map(|id| -((id * 37 % 1000) as f32) / 50.0).collect();
            let mut maxima = Vec::new();
            let row = Plain::<Portable, f32>::read(&logits, &mut maxima).unwrap();
            let mass = Mass::new(row.maximum(), temperature);
            let mut keys: Vec<u64> = logits.iter().enumerate().map(|(id, &x)| order::key(x, id)).collect();
            keys.sort_unstable();
            for count in [1, 64, 500, 1000] {
                let tokens = keys[..count].iter().map(|&key| (key, mass.of(order::logit(key))));
                assert_eq!(of_row(&row, mass, keys[count - 1]), of_tokens(tokens, mass));
            }
        }
    }

    #[test]
    fn a_surprise_is_the_logarithm_of_a_probability() {
        let mass = Mass::new(3.0, 0.7);
        for x in [3.0, 2.999, 0.0, -5.5, -20.0] {
            let bits = f64::from(mass.surprise(x)) / f64::from(1 << 22);
            let expected = (3.0 - f64::from(x)) / 0.7 * std::f64::consts::LOG2_E;
            assert!((bits - expected).abs() <= 1e-5, "{x}: {bits} {expected}");
        }
        assert_eq!(mass.surprise(f32::NEG_INFINITY), 1 << 28);
    }
}
