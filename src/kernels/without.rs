//! Draws a token from a whole row without a few of its tokens.
//!
//! ```text
//! mass[dropped] = 0
//! token = draw(mass, word)                      # as in draw.rs
//! ```
//!
//! How it is fast: the bounds of a block (`ledger.rs`), less the mass of the tokens that it loses, are bounds of what is left.

use super::draw::{Drawn, find, target};
use super::ledger::Ledger;
use super::mass::Mass;
use super::order;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Returns the token that a word draws from a row without the dropped tokens, if it is the same for all masses of the blocks
/// within their bounds. These tokens are given by their keys, in the order of the ids, and their masses.
#[inline(always)]
pub fn draw<R: Row>(row: &R, mass: Mass, ledger: &Ledger, word: u64, dropped: (&[u64], &[u64])) -> Option<Drawn> {
    R::Isa::run(move || {
        let blocks = || {
            let mut next = 0;
            ledger.blocks().enumerate().map(move |(index, (mut low, mut high))| {
                while let (Some(&key), Some(&mass)) = (dropped.0.get(next), dropped.1.get(next))
                    && order::id(key) / BLOCK == index
                {
                    (low, high) = (low.saturating_sub(mass), high.saturating_sub(mass));
                    next += 1;
                }
                (low, high)
            })
        };
        let (mut low_total, mut high_total) = (0, 0);
        for (low, high) in blocks() {
            low_total += low;
            high_total += high;
        }
        let (first, last) = (target(word, low_total), target(word, high_total));
        let (mut low_before, mut high_before) = (0, 0);
        for (index, (low, high)) in blocks().enumerate() {
            if low_before + low > last {
                if high_before > first {
                    return None;
                }
                let mut masses = mass.of_each(row.block(index, &mut Buffer::new()));
                for &key in dropped.0 {
                    if order::id(key) / BLOCK == index {
                        masses[order::id(key) % BLOCK] = 0;
                    }
                }
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
