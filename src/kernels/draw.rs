//! Draws a token from masses with one random word.
//!
//! ```text
//! target = (word * W) >> 64                                   # uniform over 0 .. W-1, W the mass of what is kept
//! token  = np.searchsorted(np.cumsum(mass), target, side="right")   # the masses in id order, 0 for what is not kept
//! ```
//!
//! A token of mass m is drawn by floor or ceil of m * 2**64 / W of the 2**64 words: the draw adds less than 2**-23 to no
//! probability. Edge rule: a token without mass is never drawn.
//!
//! How it is fast: most blocks of a row need not be counted to know which token is hit (`ledger.rs`).

use super::ledger::Ledger;
use super::mass::Mass;
use super::{BLOCK, Buffer, block};
use crate::isa::Vector;
use crate::logit::Logit;

/// The point of the mass line that a word hits.
#[inline(always)]
pub fn target(word: u64, total: u64) -> u64 {
    ((u128::from(word) * u128::from(total)) >> 64) as u64
}

/// The place of the first mass at which the running sum exceeds `target`; None if all of them together do not.
#[inline(always)]
pub fn find(masses: impl Iterator<Item = u64>, target: u64) -> Option<usize> {
    let mut left = target;
    for (place, mass) in masses.enumerate() {
        if left < mass {
            return Some(place);
        }
        left -= mass;
    }
    None
}

/// The id drawn from a whole row by a word, if it is the same wherever in their bounds the blocks' masses are.
///
/// The target lies between the targets for the least and the largest total, and so does every running sum between its own
/// bounds. The token is certain if both ends of the first fall into the same token at both ends of the second.
#[inline(always)]
pub fn from_row<I: Vector, T: Logit>(row: &[T], mass: Mass, ledger: &Ledger, word: u64) -> Option<usize> {
    let (low_total, high_total) = ledger.total();
    let (first, last) = (target(word, low_total), target(word, high_total));
    let (mut low_before, mut high_before) = (0, 0);
    for (index, (low, high)) in ledger.blocks().enumerate() {
        if low_before + low > last {
            if high_before > first {
                return None;
            }
            let masses = mass.of_each(block::<I, T>(row, index, &mut Buffer::new()));
            let place = find(masses.into_iter(), first - high_before)?;
            let same = Some(place) == find(masses.into_iter(), last - low_before);
            return same.then_some(index * BLOCK + place);
        }
        low_before += low;
        high_before += high;
    }
    None
}
