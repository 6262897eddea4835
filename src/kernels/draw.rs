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
use super::mass::{Mass, S};
use super::series::log2;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// A token that a word drew, and its interval of the mass line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The id of the token.
    pub token: usize,
    /// The mass of all tokens that were kept: the length of the line.
    pub total: u64,
    /// The mass of those of them that have a smaller id: where the interval starts.
    pub start: u64,
    /// The mass of the token: how long the interval is.
    pub mass: u64,
    /// How probable it was before adaptive-p, if that is on.
    pub odds: Odds,
}

/// A token's part of the mass of the tokens that were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Odds {
    /// The mass of the token, which is 0 if it was not kept.
    pub mass: u64,
    /// The mass of all tokens that were kept.
    pub total: u64,
}

impl Odds {
    /// Returns the probability.
    pub fn probability(self) -> f64 {
        self.mass as f64 / self.total as f64
    }

    /// Returns the negated binary logarithm of the probability. A token without a mass, which adaptive-p may draw, counts as
    /// one of the smallest mass.
    pub fn surprise(self) -> f64 {
        log2(self.total) - log2(self.mass.max(1))
    }
}

impl Drawn {
    /// A token whose interval of the line begins at `start`.
    #[inline(always)]
    pub fn new(token: usize, total: u64, start: u64, mass: u64) -> Drawn {
        Drawn { token, total, start, mass, odds: Odds { mass, total } }
    }

    /// The only token that is kept, which every word draws.
    pub fn only(token: usize) -> Drawn {
        Drawn::new(token, 1 << S, 0, 1 << S)
    }
}

/// The first mass at which a running sum exceeds a target.
pub struct Hit {
    pub place: usize,
    pub mass: u64,
    /// How far into the mass the target is.
    pub into: u64,
}

/// Returns the point that a word hits on a line as long as the total mass.
#[inline(always)]
pub fn target(word: u64, total: u64) -> u64 {
    ((u128::from(word) * u128::from(total)) >> 64) as u64
}

/// Returns the first mass at which the running sum exceeds `target`, or None if even the full sum does not.
#[inline(always)]
pub fn find(masses: impl Iterator<Item = u64>, target: u64) -> Option<Hit> {
    let mut left = target;
    for (place, mass) in masses.enumerate() {
        if left < mass {
            return Some(Hit { place, mass, into: left });
        }
        left -= mass;
    }
    None
}

/// Returns the token that a word draws from a whole row, if it is the same for all masses of the blocks within their bounds. Its
/// interval is exact if the bounds are.
///
/// The target lies between the targets for the smallest and the largest possible total. In the same way, every running sum
/// lies between its own bounds. The token is certain if both extreme targets fall into the same token at both extremes of the
/// sums.
#[inline(always)]
pub fn from_row<R: Row>(row: &R, mass: Mass, ledger: &Ledger, word: u64) -> Option<Drawn> {
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
                let hit = find(masses.into_iter(), first - high_before)?;
                let other = find(masses.into_iter(), last - low_before)?;
                let (token, start) = (index * BLOCK + hit.place, first - hit.into);
                return (hit.place == other.place).then_some(Drawn::new(token, low_total, start, hit.mass));
            }
            low_before += low;
            high_before += high;
        }
        None
    })
}
