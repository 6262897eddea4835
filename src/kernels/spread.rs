//! Computes the standard deviation of the logits of a prefix.
//!
//! ```text
//! d     = np.rint(np.minimum(first - x, 1024) * 1024)         # float32; first is the largest of the logits, d <= 2**20
//! c     = len(d);  s1 = d.sum();  s2 = (d * d).sum()          # integers
//! sigma = sqrt(float64(s2 * c - s1 * s1)) / float64(c) / 1024
//! ```
//!
//! A sum of floating-point numbers would depend on the order of the additions. So each logit is rounded to a grid of 1/1024,
//! measured from the largest one, and the sums are sums of integers. With 2**22 tokens s2 is at most 2**62.
//!
//! Edge rules: banned tokens do not count. A logit that is more than 1024 below the largest one counts as 1024 below it.
//!
//! How it is fast: adding a constant rounds a distance to the grid and leaves it in the low bits, beside the bits of the constant.
//! An instruction squares eight or four of these integers at a time, and the constant is taken out of the sums in the end. Where
//! no token of a block is banned or farther than 1024 from the largest logit, which its bits tell together, nothing else is
//! asked of the tokens.

use super::order::{self, Prefix};
use crate::isa::Vector;
use crate::lanes::{BLOCK, Products};
use crate::row::{Buffer, Row};

/// How many steps of the grid make 1.
const GRID: u32 = 1024;

/// A logit that is farther from the first one counts as this far.
const FARTHEST: f32 = 1024.0;
const MOST_STEPS: u32 = FARTHEST as u32 * GRID;

/// Sums over the distances from the largest logit, in steps of the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    count: u64,
    distance: u64,
    square: u64,
}

impl Spread {
    /// Returns the standard deviation, or None if there are no tokens, or if the sums are not those of the same tokens.
    #[inline(always)]
    pub fn sigma(self) -> Option<f64> {
        let (count, distance) = (u128::from(self.count), u128::from(self.distance));
        let variance = (u128::from(self.square) * count).checked_sub(distance * distance)?;
        (count > 0).then(|| (variance as f64).sqrt() / count as f64 / f64::from(GRID))
    }
}

/// Adding this to a distance rounds it to the grid. The last bit of the sum is one step, so its bits are [`BIAS`] and the steps.
const ROUND: f32 = ((1 << 23) / GRID) as f32;
const BIAS: u32 = ROUND.to_bits();
/// The bits that are not set as long as a distance is less than [`FARTHEST`].
const FAR: u32 = !(BIAS | (MOST_STEPS - 1));

/// Returns the distance from the first logit in steps of the grid, plus the bias.
#[inline(always)]
fn biased_steps(first: f32, x: f32) -> u32 {
    let distance = first - x;
    ((if distance < FARTHEST { distance } else { FARTHEST }) + ROUND).to_bits()
}

/// Sums over the tokens up to `last` that are not banned. `first` is the largest logit.
#[inline(always)]
pub fn of_row<R: Row>(row: &R, first: f32, last: u64) -> Spread {
    R::Isa::run(move || {
        let (is_all, prefix) = (last == order::end(row.tokens()), Prefix::not_banned(last));
        let mut buffer = Buffer::new();
        let (mut count, mut places, mut sums) = (0u64, 0u64, Products::default());
        for (index, &maximum) in row.maxima().iter().enumerate() {
            if maximum < prefix.floor(index) {
                continue;
            }
            let block = row.block(index, &mut buffer);
            places += BLOCK as u64;
            let (mut steps, mut bits) = ([0; BLOCK], 0);
            for (steps, &x) in steps.iter_mut().zip(block) {
                *steps = (first - x + ROUND).to_bits();
                bits |= *steps;
            }
            if is_all && bits & FAR == 0 {
                count += BLOCK as u64;
            } else {
                let mask = prefix.mask::<R::Isa>(block, index);
                count += u64::from(mask.count_ones());
                for (steps, &x) in steps.iter_mut().zip(&R::Isa::allowed(block, mask)) {
                    *steps = biased_steps(first, x);
                }
            }
            R::Isa::add_squares(&steps, BIAS, &mut sums);
        }
        // With s steps, the square is (s + BIAS)**2, modulo 2**64.
        let (distance, biased) = sums.total();
        let bias = u64::from(BIAS);
        let square = (biased as u64)
            .wrapping_sub(distance.wrapping_mul(2 * bias))
            .wrapping_sub(places.wrapping_mul(bias * bias));
        // Each of the other tokens was put at -inf, and counted as far away as a token can be.
        let (others, most) = (places - count, u64::from(MOST_STEPS));
        Spread {
            count,
            distance: distance.wrapping_sub(others * most),
            square: square.wrapping_sub(others * most * most),
        }
    })
}

/// Sums over tokens, which are given by their keys.
#[inline(always)]
pub fn of_tokens(keys: impl Iterator<Item = u64>, first: f32) -> Spread {
    let mut sums = Spread::default();
    for key in keys {
        let steps = u64::from(biased_steps(first, order::logit(key)).wrapping_sub(BIAS));
        sums.count += 1;
        sums.distance += steps;
        sums.square = sums.square.wrapping_add(steps.wrapping_mul(steps));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;
    use crate::row::Plain;

    fn spread(logits: &[f32], last: u64) -> Spread {
        let mut maxima = Vec::new();
        let row = Plain::<Portable, f32>::read(logits, &mut maxima).unwrap();
        of_row(&row, row.maximum(), last)
    }

    #[test]
    fn the_sums_of_a_row_are_those_of_its_tokens() {
        let mut logits: Vec<f32> = (0..1000).map(|id| -((id * 37 % 977) as f32) / 7.0).collect();
        logits[500] = f32::NEG_INFINITY;
        logits[3] = f32::MIN;
        let mut keys: Vec<u64> = logits.iter().enumerate().map(|(id, &x)| order::key(x, id)).collect();
        keys.sort_unstable();
        keys.pop(); // the banned token
        for count in [1, 64, 500, 999] {
            let tokens = of_tokens(keys[..count].iter().copied(), 0.0);
            assert_eq!(spread(&logits, keys[count - 1]), tokens);
            assert_eq!(tokens.count, count as u64);
        }
        assert_eq!(spread(&logits, order::end(1000)), of_tokens(keys.iter().copied(), 0.0));
    }

    #[test]
    fn sigma_is_the_standard_deviation() {
        assert_eq!(spread(&[5.0], u64::MAX).sigma(), Some(0.0));
        assert_eq!(spread(&[-3.0; 100], u64::MAX).sigma(), Some(0.0));
        assert_eq!(spread(&[1.0, 4.0], u64::MAX).sigma(), Some(1.5));
        // The widest spread: half of the tokens are as far away as counts.
        let half: Vec<f32> = (0..1000).map(|id| if id % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
        assert_eq!(spread(&half, u64::MAX).sigma(), Some(512.0));
        let most = Spread { count: 1 << 22, distance: 1 << 41, square: 1 << 61 };
        assert_eq!(most.sigma(), Some(512.0));
        assert_eq!(Spread::default().sigma(), None);
    }
}
