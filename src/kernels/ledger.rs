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
//! others are then so close that a draw or a filter gives the same answer at both ends. Where it does not, more blocks are
//! counted, those with the largest maxima first, until less of the mass is unknown. So each degree of certainty counts only
//! what is new. Where much may stay unknown, as in a first look for a draw, most blocks are counted only roughly, at a third of
//! the cost: a block usually weighs less than twice as much as its maximum, so that bounds by the maximum alone are too wide.
//! In the end all masses are exact.

use super::mass::{Mass, S};
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// The part of the mass that may stay unknown is smaller by this power of two in the next degree.
const CLOSER: u32 = 2;

/// If less than one part in 2**CLOSEST of the mass may stay unknown, every block is counted.
const CLOSEST: u32 = 11;

/// If less than one part in 2**ROUGH of the mass may stay unknown, blocks are not counted roughly any more: that would leave too
/// much unknown to be worth its time.
const ROUGH: u32 = 8;

/// If a row has fewer blocks than this, every block is counted, because that takes no longer than choosing some.
const FEW: usize = 64;

/// The bounds of the blocks of one row.
#[derive(Debug, Default)]
pub struct Ledger {
    low: Vec<u64>,
    high: Vec<u64>,
    /// Approximately how far the bounds of each block are apart.
    gaps: Vec<f32>,
    /// One part in 2**openness of the mass may stay unknown.
    openness: u32,
    /// The blocks whose maximum reaches this logit are known to within 2**-19 of their mass.
    floor: f32,
    /// How many these are.
    counted: usize,
    /// Other blocks whose maximum reaches this logit are known roughly, and all others by their maxima alone.
    rough_floor: f32,
    /// True if every block is known exactly.
    is_exact: bool,
}

impl Ledger {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.low, blocks)?;
        reserve(&mut self.high, blocks)?;
        reserve(&mut self.gaps, blocks)
    }

    /// Starts the ledger of a row, with the bounds that the maxima give and tighter bounds for the heaviest blocks, so that no
    /// more than one part in 2**openness of the mass stays unknown.
    #[inline(always)]
    pub fn open<R: Row>(&mut self, row: &R, mass: Mass, openness: u32) {
        let openness = if row.maxima().len() < FEW { CLOSEST + 1 } else { openness };
        (self.openness, self.counted, self.is_exact) = (openness, 0, false);
        (self.floor, self.rough_floor) = (f32::INFINITY, f32::INFINITY);
        let maxima = row.maxima();
        let Ledger { low, high, gaps, .. } = self;
        R::Isa::run(move || {
            low.resize(maxima.len(), 0);
            high.resize(maxima.len(), 0);
            gaps.resize(maxima.len(), 0.0);
            let blocks = low.chunks_mut(BLOCK).zip(high.chunks_mut(BLOCK)).zip(gaps.chunks_mut(BLOCK));
            for (maxima, ((low, high), gaps)) in maxima.chunks(BLOCK).zip(blocks) {
                let mut padded = [f32::NEG_INFINITY; BLOCK];
                padded[..maxima.len()].copy_from_slice(maxima);
                let weights = mass.weights::<R::Isa>(&padded);
                for (((low, high), gap), weight) in low.iter_mut().zip(high).zip(gaps).zip(weights) {
                    *low = Mass::rounded(weight);
                    *high = *low * BLOCK as u64;
                    *gap = weight * (BLOCK - 1) as f32;
                }
            }
        });
        self.count(row, mass);
    }

    /// True if every block is counted, so that only an exact count can tell more.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        self.floor == f32::MIN
    }

    /// Tightens the bounds by a degree. The last degree is exact. One more call is an error: exact masses answer every question
    /// about a row that does not change, so the row must have changed.
    #[inline(always)]
    pub fn refine<R: Row>(&mut self, row: &R, mass: Mass) -> Result<(), RowError> {
        if self.is_exact {
            return Err(RowError::Changed);
        }
        if self.is_complete() {
            self.count_exactly(row, mass);
        } else {
            self.openness += CLOSER;
            self.count(row, mass);
        }
        Ok(())
    }

    /// Counts every block exactly.
    #[inline(always)]
    fn count_exactly<R: Row>(&mut self, row: &R, mass: Mass) {
        R::Isa::run(move || {
            self.is_exact = true;
            let light = mass.light();
            let mut buffer = Buffer::new();
            let bounds = self.low.iter_mut().zip(&mut self.high);
            for ((index, &maximum), (low, high)) in row.maxima().iter().enumerate().zip(bounds) {
                let weights = mass.weights::<R::Isa>(row.block(index, &mut buffer));
                *low = Mass::of_weights::<R::Isa>(&weights, maximum <= light);
                *high = *low;
            }
        })
    }

    /// Counts blocks, first roughly and then to within 2**-19, until no more than the open part is unknown.
    #[inline(always)]
    fn count<R: Row>(&mut self, row: &R, mass: Mass) {
        R::Isa::run(move || {
            let (maxima, mut buffer) = (row.maxima(), Buffer::new());
            let open = (self.low.iter().sum::<u64>() >> self.openness) as f32;
            if self.openness <= ROUGH {
                let floor = self.floor_above::<R::Isa>(maxima, mass, open / 2.0).min(self.rough_floor);
                for index in row.between(floor, self.rough_floor) {
                    let (low, high) = mass.rough_bounds_of_block::<R::Isa>(row.block(index, &mut buffer));
                    (self.low[index], self.high[index], self.gaps[index]) = (low, high, (high - low) as f32);
                }
                self.rough_floor = floor;
            }
            let is_part = self.openness <= CLOSEST && self.counted <= maxima.len() / 2;
            let floor = if is_part { self.floor_above::<R::Isa>(maxima, mass, open).min(self.floor) } else { f32::MIN };
            for index in row.between(floor, self.floor) {
                let (low, high) = mass.bounds_of_block::<R::Isa>(row.block(index, &mut buffer));
                (self.low[index], self.high[index], self.gaps[index]) = (low, high, 0.0);
                self.counted += 1;
            }
            self.floor = floor;
        })
    }

    /// Returns a logit such that approximately no more than `open` is unknown of the blocks whose maximum is below it.
    #[inline(always)]
    fn floor_above<I: Vector>(&self, maxima: &[f32], mass: Mass, open: f32) -> f32 {
        let floor = |power| mass.logit_of_at_most(power).next_up().max(f32::MIN);
        let (mut power, mut step) = (0, 1 << S.ilog2());
        while step > 0 {
            if power + step <= S && I::nearly_sum_below(maxima, floor(power + step), &self.gaps) <= open {
                power += step;
            }
            step /= 2;
        }
        floor(power)
    }

    /// Iterates over the bounds of each block.
    #[inline(always)]
    pub fn blocks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.low.iter().copied().zip(self.high.iter().copied())
    }

    /// Returns the bounds of the mass of the row.
    #[inline(always)]
    pub fn total(&self) -> (u64, u64) {
        let (mut low_total, mut high_total) = (0, 0);
        for (&low, &high) in self.low.iter().zip(&self.high) {
            low_total += low;
            high_total += high;
        }
        (low_total, high_total)
    }
}
