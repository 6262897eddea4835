//! A prefix of the total order that is too long to be listed: counted, weighed and drawn from by passes over the row.
//!
//! ```text
//! count = np.count_nonzero(keys <= near)        # keys as in order.rs
//! W     = mass[keys <= near].sum()
//! rest  = np.flatnonzero((near < keys) & (keys <= far))
//! ```
//!
//! The end of the prefix is known to lie between two keys (`survey.rs`). What comes before the first is measured block by
//! block, what lies between them is listed, and the end is looked for in that list.
//!
//! How it is fast: comparisons and sums of whole blocks, without a branch for each token; the mass of a block is exact as in
//! `mass.rs`, with 0 in the place of what is not in the prefix. Which tokens are, a comparison with one float tells, except
//! in the block with the last token, where ties are split.

use super::candidates::Held;
use super::draw;
use super::mass::Mass;
use super::order::Prefix;
use super::{BLOCK, Buffer, block, order, reaching, reserve};
use crate::error::RowError;
use crate::isa::Vector;
use crate::logit::Logit;

/// Counts the tokens up to `near`, and fills `rest` with the keys of those after it and up to `far`.
#[inline(always)]
pub fn count<I: Vector, T: Logit>(row: &[T], maxima: &[f32], near: Prefix, far: Prefix, rest: &mut Vec<u64>) -> usize {
    rest.clear();
    let mut buffer = Buffer::new();
    let mut held = Held::default();
    let mut count = 0;
    for index in reaching::<I>(maxima, far.least()) {
        let block = block::<I, T>(row, index, &mut buffer);
        let counted = near.mask::<I>(block, index);
        count += counted.count_ones() as usize;
        held.take(block, index, far.mask::<I>(block, index) & !counted, rest);
    }
    held.give(rest);
    count
}

/// Fills `out` with the tokens of a prefix, -inf in the place of the others.
#[inline(always)]
pub fn copy<I: Vector, T: Logit>(row: &[T], maxima: &[f32], prefix: Prefix, out: &mut [T]) {
    out.fill(T::NEG_INFINITY);
    let mut buffer = Buffer::new();
    for index in reaching::<I>(maxima, prefix.least()) {
        let mut mask = prefix.mask::<I>(block::<I, T>(row, index, &mut buffer), index);
        while mask != 0 {
            let id = index * BLOCK + mask.trailing_zeros() as usize;
            out[id] = row[id];
            mask &= mask - 1;
        }
    }
}

/// The mass of the tokens up to a key, in each block.
#[derive(Debug, Default)]
pub struct Blocks {
    masses: Vec<u64>,
}

impl Blocks {
    /// Reserves memory for a row of so many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.masses, blocks)
    }

    /// Weighs the tokens up to `near`, fills `rest` with the keys of those after it and up to `far`, and gives the mass of all
    /// tokens up to `last`, which is not before `far`.
    #[inline(always)]
    pub fn weigh<I: Vector, T: Logit>(
        &mut self,
        row: &[T],
        maxima: &[f32],
        mass: Mass,
        [near, far, last]: [u64; 3],
        rest: &mut Vec<u64>,
    ) -> u64 {
        let is_near_all = near == last;
        let (near, far, last) = (Prefix::to(near), Prefix::to(far), Prefix::to(last));
        self.masses.clear();
        self.masses.resize(maxima.len(), 0);
        rest.clear();
        let mut buffer = Buffer::new();
        let mut held = Held::default();
        let (mut total, light) = (0, mass.light());
        for (index, &maximum) in maxima.iter().enumerate() {
            if maximum < last.floor(index) {
                continue;
            }
            let block = block::<I, T>(row, index, &mut buffer);
            let (weights, is_light) = (mass.weights(block), maximum <= light);
            if maximum >= near.floor(index) {
                self.masses[index] = Mass::of_weights::<I>(&near.keep::<I>(&weights, block, index), is_light);
            }
            if is_near_all {
                total += self.masses[index];
                continue;
            }
            total += Mass::of_weights::<I>(&last.keep::<I>(&weights, block, index), is_light);
            if maximum >= far.floor(index) {
                held.take(block, index, far.mask::<I>(block, index) & !near.mask::<I>(block, index), rest);
            }
        }
        held.give(rest);
        total
    }

    /// The mass of the tokens up to `near`.
    #[inline(always)]
    pub fn total(&self) -> u64 {
        self.masses.iter().sum()
    }

    /// The id at which the running mass of the tokens up to `last`, in id order, exceeds `target`; None if all of them
    /// together do not. `rest` has the keys and masses of the tokens after `near` and up to `last`, in id order.
    #[inline(always)]
    pub fn find<I: Vector, T: Logit>(
        &self,
        row: &[T],
        mass: Mass,
        last: u64,
        target: u64,
        mut rest: impl Iterator<Item = (u64, u64)>,
    ) -> Option<usize> {
        let mut left = target;
        let mut next = rest.next();
        for (index, &up_to_near) in self.masses.iter().enumerate() {
            let mut sum = up_to_near;
            while let Some((key, mass)) = next
                && order::id(key) / BLOCK == index
            {
                sum += mass;
                next = rest.next();
            }
            if left < sum {
                let mut buffer = Buffer::new();
                let block = block::<I, T>(row, index, &mut buffer);
                let mask = Prefix::to(last).mask::<I>(block, index);
                let mut masses = mass.of_each(block);
                for (place, mass) in masses.iter_mut().enumerate() {
                    *mass *= mask >> place & 1;
                }
                return draw::find(masses.into_iter(), left).map(|place| index * BLOCK + place);
            }
            left -= sum;
        }
        None
    }
}
