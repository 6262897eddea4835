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
//! How it is fast: a block is turned into integers of 32 bits, whose squares are summed as 64-bit integers, without a branch.

use super::order::{self, Prefix};
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// How many steps of the grid make 1.
const GRID: f32 = 1024.0;

/// A logit that is farther from the first one counts as this far.
const FARTHEST: f32 = 1024.0;

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

/// Returns the distance from the first logit in steps of the grid, before it is rounded.
#[inline(always)]
fn distance(first: f32, x: f32) -> f32 {
    let distance = first - x;
    GRID * if distance < FARTHEST { distance } else { FARTHEST }
}

/// Rounds a distance to an integer.
#[inline(always)]
fn rounded(distance: f32) -> u32 {
    const ROUND: f32 = (1 << 23) as f32; // it leaves an integer in the low bits
    (distance + ROUND).to_bits().wrapping_sub(ROUND.to_bits())
}

/// Sums over the tokens up to `last` that are not banned. `first` is the largest logit.
#[inline(always)]
pub fn of_row<R: Row>(row: &R, first: f32, last: u64) -> Spread {
    R::Isa::run(move || {
        let prefix = Prefix::not_banned(last);
        let mut buffer = Buffer::new();
        let mut sums = Spread::default();
        for (index, &maximum) in row.maxima().iter().enumerate() {
            if maximum < prefix.floor(index) {
                continue;
            }
            let block = row.block(index, &mut buffer);
            let mut distances = [0f32; BLOCK];
            for (distance, &x) in distances.iter_mut().zip(block) {
                *distance = self::distance(first, x);
            }
            let (mut sum, mut squares) = (0u32, 0u64);
            for distance in prefix.keep::<R::Isa>(&distances, block, index) {
                let distance = rounded(distance);
                sum = sum.wrapping_add(distance);
                squares = squares.wrapping_add(u64::from(distance).wrapping_mul(u64::from(distance)));
            }
            sums.count += u64::from(prefix.mask::<R::Isa>(block, index).count_ones());
            sums.distance += u64::from(sum);
            sums.square = sums.square.wrapping_add(squares);
        }
        sums
    })
}

/// Sums over tokens, which are given by their keys.
#[inline(always)]
pub fn of_tokens(keys: impl Iterator<Item = u64>, first: f32) -> Spread {
    let mut sums = Spread::default();
    for key in keys {
        let distance = u64::from(rounded(distance(first, order::logit(key))));
        sums.count += 1;
        sums.distance += distance;
        sums.square = sums.square.wrapping_add(distance.wrapping_mul(distance));
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
