//! Counts, weighs and draws from a prefix of the total order that is too long to be listed, by passes over the row.
//!
//! ```text
//! count = np.count_nonzero(keys <= near)        # keys as in order.rs
//! W     = mass[keys <= near].sum()
//! rest  = np.flatnonzero((near < keys) & (keys <= far))
//! ```
//!
//! The caller looks for the end of the prefix between two keys, `near` and `far` (`survey.rs`). The tokens up to the first key
//! are measured group by group. The tokens between the keys are listed, and the end is looked for in that list.
//!
//! Edge rule: the mass of a block is exact, as in `mass.rs`, with 0 in place of each token that is not in the prefix.
//!
//! How it is fast: it compares and sums whole blocks, without a branch for each token. A comparison with one float tells which
//! tokens are in the prefix. The block with the last token is the exception, because ties are split there. The sums of a group of
//! blocks stay in lanes, and what a row has beyond the first key is summed apart, because most often it is light.

use super::candidates::Held;
use super::draw::{self, Hit};
use super::mass::Mass;
use super::order;
use super::order::Prefix;
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::{BLOCK, GROUP, Sum};
use crate::logit::Logit;
use crate::row::{Buffer, Row};

/// Counts the tokens up to `near`, and fills `rest` with the keys of the tokens after it and up to `far`.
#[inline(always)]
pub fn count<R: Row>(row: &R, near: Prefix, far: Prefix, rest: &mut Vec<u64>) -> usize {
    R::Isa::run(move || {
        rest.clear();
        let mut buffer = Buffer::new();
        let mut held = Held::default();
        let mut count = 0;
        for index in row.reaching(far.least()) {
            let block = row.block(index, &mut buffer);
            let counted = near.mask::<R::Isa>(block, index);
            count += counted.count_ones() as usize;
            held.take(block, index, far.mask::<R::Isa>(block, index) & !counted, rest);
        }
        held.give(rest);
        count
    })
}

/// Fills `out` with the logits of the tokens in a prefix, and with -inf in place of all others.
#[inline(always)]
pub fn copy<R: Row>(row: &R, prefix: Prefix, out: &mut [R::Logit]) {
    R::Isa::run(move || {
        out.fill(R::Logit::NEG_INFINITY);
        let mut buffer = Buffer::new();
        for index in row.reaching(prefix.least()) {
            let mut mask = prefix.mask::<R::Isa>(row.block(index, &mut buffer), index);
            while mask != 0 {
                let id = index * BLOCK + mask.trailing_zeros() as usize;
                out[id] = row.stored()[id];
                mask &= mask - 1;
            }
        }
    })
}

/// The mass of the tokens up to a key, in each group of blocks.
#[derive(Debug, Default)]
pub struct Blocks {
    masses: Vec<u64>,
}

impl Blocks {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.masses, blocks.div_ceil(GROUP))
    }

    /// Weighs the tokens up to `near`, fills `rest` with the keys of the tokens after it and up to `far`, and returns the mass
    /// of all tokens up to `last`, which must not come before `far`, or be `START` if that mass is not needed.
    #[inline(always)]
    pub fn weigh<R: Row>(&mut self, row: &R, mass: Mass, [near, far, last]: [u64; 3], rest: &mut Vec<u64>) -> u64 {
        R::Isa::run(move || {
            let (needs_others, needs_rest) = (last != order::START && last != near, far != near);
            let end = Prefix::to(last.max(far));
            // No token has to be left out. A banned one has no mass.
            let is_whole = near >= order::end(row.tokens());
            let [near, far, last] = [near, far, last].map(Prefix::to);
            self.masses.clear();
            self.masses.resize(row.maxima().len().div_ceil(GROUP), 0);
            rest.clear();
            let mut buffer = Buffer::new();
            let mut held = Held::default();
            let (light, mut others) = (mass.light(), Sum::default());
            let groups = row.maxima().chunks(GROUP).zip(&mut self.masses);
            for (group, (maxima, group_mass)) in groups.enumerate() {
                let mut sum = Sum::default();
                for (index, &maximum) in (GROUP * group..).zip(maxima) {
                    if maximum < end.floor(index) {
                        continue;
                    }
                    let block = row.block(index, &mut buffer);
                    let weights = mass.weights::<R::Isa>(block);
                    if is_whole {
                        R::Isa::add(&weights, maximum <= light, &mut sum);
                        continue;
                    }
                    let mut kept = [0.0; BLOCK];
                    if maximum >= near.floor(index) {
                        kept = near.keep::<R::Isa>(&weights, block, index);
                        R::Isa::add(&kept, maximum <= light, &mut sum);
                    }
                    if needs_others {
                        let mut other = last.keep::<R::Isa>(&weights, block, index);
                        for (other, kept) in other.iter_mut().zip(&kept) {
                            *other -= kept; // which is equal, or 0
                        }
                        R::Isa::add(&other, maximum.min(near.least()) <= light, &mut others);
                    }
                    if needs_rest && maximum >= far.floor(index) {
                        let mask = far.mask::<R::Isa>(block, index) & !near.mask::<R::Isa>(block, index);
                        held.take(block, index, mask, rest);
                    }
                }
                *group_mass = sum.total();
            }
            held.give(rest);
            if needs_others { self.masses.iter().sum::<u64>() + others.total() } else { self.masses.iter().sum() }
        })
    }

    /// Returns the mass of the tokens up to `near`.
    #[inline(always)]
    pub fn total<I: Vector>(&self) -> u64 {
        I::run(|| self.masses.iter().sum())
    }

    /// Returns the token at which the running mass of those up to `last`, in the order of the ids, exceeds `target`, or None
    /// if even the full sum does not. `rest` yields the keys and masses of the tokens after `near` and up to `last`, and
    /// `dropped` those of the tokens to leave out, each in the order of the ids.
    #[inline(always)]
    pub fn find<R: Row>(
        &self,
        row: &R,
        mass: Mass,
        last: u64,
        target: u64,
        mut rest: impl Iterator<Item = (u64, u64)>,
        mut dropped: impl Iterator<Item = (u64, u64)>,
    ) -> Option<Hit> {
        R::Isa::run(move || {
            let mut left = target;
            let (mut next, mut next_dropped) = (rest.next(), dropped.next());
            for (group, &up_to_near) in self.masses.iter().enumerate() {
                let is_here = |key| order::id(key) / (GROUP * BLOCK) == group;
                let mut sum = up_to_near;
                while let Some((key, mass)) = next
                    && is_here(key)
                {
                    sum += mass;
                    next = rest.next();
                }
                let mut kept = [u64::MAX; GROUP];
                while let Some((key, mass)) = next_dropped
                    && is_here(key)
                {
                    sum = sum.saturating_sub(mass); // it is no larger, unless the row changes
                    kept[order::id(key) / BLOCK % GROUP] &= !(1 << (order::id(key) % BLOCK));
                    next_dropped = dropped.next();
                }
                if left < sum {
                    return find_in_group(row, mass, Prefix::to(last), group, &kept, left);
                }
                left -= sum;
            }
            None
        })
    }
}

/// Returns the token of a group of blocks at which the running mass of those that are kept exceeds `target`. Each block has a
/// word that says which tokens are kept, of those in the prefix.
#[inline(always)]
fn find_in_group<R: Row>(
    row: &R,
    mass: Mass,
    prefix: Prefix,
    group: usize,
    kept: &[u64; GROUP],
    target: u64,
) -> Option<Hit> {
    let (mut left, mut buffer) = (target, Buffer::new());
    let end = row.maxima().len();
    for (index, kept) in (GROUP * group..end).zip(kept) {
        let block = row.block(index, &mut buffer);
        let mask = prefix.mask::<R::Isa>(block, index) & kept;
        let mut masses = mass.of_each(block);
        for (place, mass) in masses.iter_mut().enumerate() {
            *mass *= mask >> place & 1;
        }
        let sum = masses.iter().sum();
        if left < sum {
            let hit = draw::find(masses.into_iter(), left)?;
            return Some(Hit { place: index * BLOCK + hit.place, ..hit });
        }
        left -= sum;
    }
    None
}
