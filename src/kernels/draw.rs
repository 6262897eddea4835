//! Draws a token from masses with one random word.
//!
//! ```text
//! target = (word * W) >> 64                                   # uniform over 0 .. W-1, W the mass of what is kept
//! token  = np.searchsorted(np.cumsum(mass), target, side="right")   # the masses in id order, 0 for what is not kept
//! ```
//!
//! A token of mass m is drawn by floor or ceil of m * 2**64 / W of the 2**64 words: the draw adds less than 2**-23 to no
//! probability. Edge rule: a token without mass is never drawn.

use super::mass::Mass;
use super::{BLOCK, block};
use crate::logit::Logit;

/// The point of the mass line that a word hits.
#[inline(always)]
pub fn target(word: u64, total: u64) -> u64 {
    ((u128::from(word) * u128::from(total)) >> 64) as u64
}

/// The place of the first mass at which the running sum exceeds `target`, and the running sum before it.
#[inline(always)]
pub fn find(masses: &[u64], target: u64) -> (usize, u64) {
    let mut running = 0;
    for (place, &mass) in masses.iter().enumerate() {
        if target - running < mass {
            return (place, running);
        }
        running += mass;
    }
    unreachable!("a target is below the mass it was taken from")
}

/// The id drawn from a whole row, of which `sums` are the masses of the blocks.
#[inline(always)]
pub fn from_row<T: Logit>(row: &[T], mass: Mass, sums: &[u64], target: u64) -> usize {
    let (at, before) = find(sums, target);
    let masses = block(row, at).map(|x| mass.of(x.to_f32()));
    at * BLOCK + find(&masses, target - before).0
}
