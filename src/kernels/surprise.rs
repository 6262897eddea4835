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
//! bits. In most blocks no mass has more than 28 bits, and an instruction multiplies integers of 32 bits. In other blocks each
//! mass is split into two parts. Blocks without mass are left out.

use super::mass::{Mass, S};
use super::order::{self, Prefix};
use super::series::log2;
use crate::isa::Vector;
use crate::lanes::{BLOCK, Products};
use crate::row::{Buffer, Row};

/// Sums over the tokens of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// The mass of all tokens.
    pub mass: u64,
    /// The sum of mass times surprise.
    pub surprise: u128,
    /// The number of tokens that are not banned, if they were counted, or 0.
    pub count: usize,
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

/// Sums over the tokens up to `last`, which are counted if `counts`.
#[inline(always)]
pub fn of_row<R: Row>(row: &R, mass: Mass, last: u64, counts: bool) -> Moments {
    R::Isa::run(move || {
        let is_all = last == order::end(row.tokens());
        let prefix = Prefix::not_banned(last);
        let mut buffer = Buffer::new();
        let (mut sums, light) = (Sums::default(), mass.logit_of_at_most(Products::LIGHT));
        // The mass never decreases with the logit, so a block whose maximum is below this floor has no mass.
        let floor = prefix.least().max(mass.floor(1));
        let mut count = 0;
        for index in row.reaching(if counts { prefix.least() } else { floor }) {
            let block = row.block(index, &mut buffer);
            if counts {
                count += prefix.mask::<R::Isa>(block, index).count_ones() as usize;
                if row.maxima()[index] < floor {
                    continue;
                }
            }
            let (weights, surprises) = mass.weights_and_surprises::<R::Isa>(block);
            let weights = if is_all { weights } else { prefix.keep::<R::Isa>(&weights, block, index) };
            if row.maxima()[index] <= light {
                R::Isa::add_products(&weights, &surprises, &mut sums.light);
            } else {
                sums.add_heavy::<R::Isa>(&weights, &surprises);
            }
            sums.blocks += 1;
            if sums.blocks == Sums::MOST_BLOCKS {
                sums = Sums { whole: sums.total(), ..Sums::default() };
            }
        }
        Moments { count, ..sums.total() }
    })
}

/// Sums in lanes, which are added to `whole` before one can overflow.
#[derive(Clone, Copy, Default)]
struct Sums {
    whole: Moments,
    /// How many blocks are in the lanes.
    blocks: usize,
    /// The weights of blocks in which all are at most 2**Products::LIGHT.
    light: Products,
    /// The upper part of all other weights: what they have of whole multiples of 2**HALF.
    high: Products,
    /// The rest of them.
    low: Products,
}

impl Sums {
    /// The bits of the lower part of a weight.
    const HALF: u32 = 20;
    /// A block adds eight products to each lane. A product is less than 2**54: a token with a mass of 2**28 has a surprise of 13
    /// bits, and with each bit more, half of the mass.
    const MOST_BLOCKS: usize = 64;

    /// Adds a block of weights of up to 2**41.
    #[inline(always)]
    fn add_heavy<I: Vector>(&mut self, weights: &[f32; BLOCK], surprises: &[f32; BLOCK]) {
        const UNIT: f32 = (1 << Sums::HALF) as f32;
        const ROUND: f32 = 1.5 * (1u64 << (23 + Sums::HALF)) as f32; // the last bit of a sum with this is 2**HALF
        let (mut high, mut low) = ([0f32; BLOCK], [0f32; BLOCK]);
        for ((high, low), &weight) in high.iter_mut().zip(&mut low).zip(weights) {
            // The nearest multiple of UNIT to half a unit less leaves a rest of 0 to UNIT. All of this is exact: a weight above
            // UNIT has no bits below 2**-4.
            let part = (weight - UNIT / 2.0 + ROUND) - ROUND;
            (*high, *low) = (part / UNIT, weight - part);
        }
        I::add_products(&high, surprises, &mut self.high);
        I::add_products(&low, surprises, &mut self.low);
    }

    #[inline(always)]
    fn total(&self) -> Moments {
        // One by one, because `map` over an array is not always inlined.
        let (light, high, low) = (self.light.total(), self.high.total(), self.low.total());
        Moments {
            mass: self.whole.mass.wrapping_add(light.0).wrapping_add(high.0 << Sums::HALF).wrapping_add(low.0),
            surprise: self.whole.surprise + light.1 + (high.1 << Sums::HALF) + low.1,
            count: 0,
        }
    }
}

/// Sums over tokens, none of them banned, which are given by their keys and masses.
#[inline(always)]
pub fn of_tokens(tokens: impl Iterator<Item = (u64, u64)>, mass: Mass) -> Moments {
    let mut sums = Moments::default();
    for (key, token_mass) in tokens {
        sums.count += 1;
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
            let mut logits: Vec<f32> = (0..1000).map(|id| -((id * 37 % 1000) as f32) / 50.0).collect();
            logits[128..192].fill(-1e4); // a block without mass at low temperatures
            logits[3] = f32::NEG_INFINITY;
            let mut maxima = Vec::new();
            let row = Plain::<Portable, f32>::read(&logits, &mut maxima).unwrap();
            let mass = Mass::new(row.maximum(), temperature);
            let mut keys: Vec<u64> = logits.iter().enumerate().map(|(id, &x)| order::key(x, id)).collect();
            keys.sort_unstable();
            for count in [1, 64, 500, 999] {
                let tokens = keys[..count].iter().map(|&key| (key, mass.of(order::logit(key))));
                let moments = of_tokens(tokens, mass);
                assert_eq!(moments.count, count);
                assert_eq!(of_row(&row, mass, keys[count - 1], true), moments);
                assert_eq!(of_row(&row, mass, keys[count - 1], false), Moments { count: 0, ..moments });
            }
            assert_eq!(of_row(&row, mass, order::end(1000), true).count, 999);
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
