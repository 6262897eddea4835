//! Draws a token from the masses with one random word.
//!
//! ```text
//! target = (word * W) >> 64                          # uniform over 0 .. W-1, with W the mass of the tokens that are kept
//! token  = np.searchsorted(np.cumsum(mass), target, side="right")   # the masses in id order, 0 for a token not kept
//! ```
//!
//! Of the 2**64 words, m * 2**64 / W, rounded down or up, draw a token of mass m. So its probability of being drawn differs
//! from m / W by less than 2**-64.
//!
//! Edge rule: a token without mass is never drawn.
//!
//! How it is fast: to know which token is hit, most blocks of the row do not have to be counted (`ledger.rs`).

use super::ledger::Ledger;
use super::mass::Mass;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Returns the point that a word hits on a line as long as the total mass.
#[inline(always)]
pub fn target(word: u64, total: u64) -> u64 {
    ((u128::from(word) * u128::from(total)) >> 64) as u64
}

/// Returns the place of the first mass at which the running sum exceeds `target`, or None if even the full sum does not.
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

/// Returns the id that a word draws from a whole row, if it is the same for all masses of the blocks within their bounds.
///
/// The target lies between the targets for the smallest and the largest possible total. In the same way, every running sum
/// lies between its own bounds. The token is certain if both extreme targets fall into the same token at both extremes of the
/// sums.
#[inline(always)]
pub fn from_row<R: Row>(row: &R, mass: Mass, ledger: &Ledger, word: u64) -> Option<usize> {
    R::Isa::run(move || {
        let (low_total, high_total) = ledger.total();
        let (first, last) = (target(word, low_total), target(word, high_total));
        let (mut low_before, mut high_before) = (0, 0);
        for (index, (low, high)) in ledger.blocks().enumerate() {
            if low_before + low > last {
                if high_before > first {
                    return None;
                }
                let masses = mass.of_each(row.block(index, &mut Buffer::new()));
                let place = find(masses.into_iter(), first - high_before)?;
                let same = Some(place) == find(masses.into_iter(), last - low_before);
                return same.then_some(index * BLOCK + place);
            }
            low_before += low;
            high_before += high;
        }
        None
    })
}
