//! Keeps a lower and an upper bound of the mass of each block, and tightens them as needed.
//!
//! ```text
//! blocks = mass(row).reshape(-1, 64)            # the row padded with -inf
//! blocks.max(axis=1) <= blocks.sum(axis=1) <= 64 * blocks.max(axis=1)
//! ```
//!
//! The mass never decreases when the logit increases. So the largest mass in a block is that of its maximum, which is known
//! from the pass over the row.
//!
//! Edge rule: the answer is exact however tight the bounds are, because a bound decides nothing unless both of its ends lead
//! to the same answer. Only the time differs.
//!
//! How it is fast: in most rows a few blocks hold nearly all of the mass. Those blocks are counted, and the bounds of the
//! others are then so close that a draw or a filter gives the same answer at both ends. Where it does not, the bounds are
//! refined, in the end to the exact masses.

use super::mass::Mass;
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// At first, one part in 2**OPEN of a row's mass may stay unknown. A larger part makes a second look more likely, and a
/// smaller part makes the first look take longer.
const OPEN: u32 = 8;

/// Blocks whose maximum has at least this mass are counted first. In most rows they leave less than that part unknown; where
/// they do not, the bar is lowered by a power of two at a time, which is cheap, because it only sums what the maxima give.
const HEAVY: u64 = 1 << 32;
const LOWER: u32 = 4;

/// The bounds of the blocks of one row.
#[derive(Debug, Default)]
pub struct Ledger {
    low: Vec<u64>,
    high: Vec<u64>,
    known: Known,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Known {
    /// The heaviest blocks are known to within 2**-19 of their mass, and the others by their maxima.
    #[default]
    Heaviest,
    /// Every block is known to within 2**-19 of its mass.
    Nearly,
    /// Every block is known exactly.
    Exactly,
}

impl Ledger {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.low, blocks)?;
        reserve(&mut self.high, blocks)
    }

    /// Starts the ledger of a row, with the bounds that the maxima give and tighter bounds for the heaviest blocks.
    #[inline(always)]
    pub fn open<R: Row>(&mut self, row: &R, mass: Mass) {
        R::Isa::run(move || {
            mass.of_all(row.maxima().iter().copied(), &mut self.low);
            self.high.resize(row.maxima().len(), 0);
            for (high, largest) in self.high.iter_mut().zip(&self.low) {
                *high = largest * BLOCK as u64;
            }
            self.known = Known::Heaviest;
            let open = self.low.iter().sum::<u64>() >> OPEN;
            let mut least = HEAVY;
            while self.open_below(least) > open {
                least >>= LOWER;
            }
            self.count(least, row, mass);
        })
    }

    /// Returns the exact mass of a row.
    #[inline(always)]
    pub fn exact_total<R: Row>(&mut self, row: &R, mass: Mass) -> u64 {
        self.low.resize(row.maxima().len(), 0);
        self.high.resize(row.maxima().len(), 0);
        self.count_exactly(row, mass);
        self.total().0
    }

    /// Tightens the bounds; two calls make them exact. A third call is an error: exact masses answer every question about a
    /// row that does not change, so the row must have changed.
    #[inline(always)]
    pub fn refine<R: Row>(&mut self, row: &R, mass: Mass) -> Result<(), RowError> {
        match self.known {
            Known::Heaviest => {
                self.known = Known::Nearly;
                self.count(1, row, mass);
            }
            Known::Nearly => self.count_exactly(row, mass),
            Known::Exactly => return Err(RowError::Changed),
        }
        Ok(())
    }

    /// Counts every block exactly.
    #[inline(always)]
    fn count_exactly<R: Row>(&mut self, row: &R, mass: Mass) {
        R::Isa::run(move || {
            self.known = Known::Exactly;
            let light = mass.light();
            let mut buffer = Buffer::new();
            let bounds = self.low.iter_mut().zip(&mut self.high);
            for ((index, &maximum), (low, high)) in row.maxima().iter().enumerate().zip(bounds) {
                let weights = mass.weights(row.block(index, &mut buffer));
                *low = Mass::of_weights::<R::Isa>(&weights, maximum <= light);
                *high = *low;
            }
        })
    }

    /// Counts those blocks that are known by their maxima alone and whose maximum has a mass of at least `least`.
    #[inline(always)]
    fn count<R: Row>(&mut self, least: u64, row: &R, mass: Mass) {
        R::Isa::run(move || {
            let mut buffer = Buffer::new();
            for (index, (low, high)) in self.low.iter_mut().zip(&mut self.high).enumerate() {
                let by_maximum = *high == *low * BLOCK as u64;
                if by_maximum && *low >= least {
                    (*low, *high) = mass.bounds_of_block::<R::Isa>(row.block(index, &mut buffer));
                }
            }
        })
    }

    /// Returns how much mass stays unknown if only the blocks with a largest mass of at least `least` are counted.
    #[inline(always)]
    fn open_below(&self, least: u64) -> u64 {
        self.low.iter().map(|&largest| if largest < least { largest * (BLOCK as u64 - 1) } else { 0 }).sum()
    }

    /// Iterates over the bounds of each block.
    #[inline(always)]
    pub fn blocks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.low.iter().copied().zip(self.high.iter().copied())
    }

    /// Returns the bounds of the mass of the row.
    #[inline(always)]
    pub fn total(&self) -> (u64, u64) {
        (self.low.iter().sum(), self.high.iter().sum())
    }
}
