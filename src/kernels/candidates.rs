//! Lists the tokens that can survive: those of a prefix of the total order.
//!
//! ```text
//! ids = np.flatnonzero(keys <= last)            # keys as in order.rs
//! ```
//!
//! They come in id order, as keys.
//!
//! How it is fast: a block whose maximum is too low is not looked at; of the others, a comparison gives a mask of the tokens,
//! and only those are visited. A list that turns out to be long is given up: `prefix.rs` does without one.

use super::order::Prefix;
use super::{BLOCK, Buffer, block, order, reaching};
use crate::isa::Vector;
use crate::logit::Logit;

/// Fills `keys` with the tokens of the prefix; false, and not all of them, if they are more than `limit`.
#[inline(always)]
pub fn collect<I: Vector, T: Logit>(
    row: &[T],
    maxima: &[f32],
    prefix: Prefix,
    limit: usize,
    keys: &mut Vec<u64>,
) -> bool {
    keys.clear();
    let mut buffer = Buffer::new();
    let mut held = Held::default();
    for index in reaching::<I>(maxima, prefix.least()) {
        let block = block::<I, T>(row, index, &mut buffer);
        held.take(block, index, prefix.mask::<I>(block, index), keys);
        if keys.len() > limit {
            return false;
        }
    }
    held.give(keys);
    keys.len() <= limit
}

/// Keys that are held back before they are added to a list, which costs more than a store.
pub struct Held {
    keys: [u64; HELD],
    count: usize,
}

const HELD: usize = 256;

impl Default for Held {
    #[inline(always)]
    fn default() -> Self {
        Held { keys: [0; HELD], count: 0 }
    }
}

impl Held {
    /// Takes the tokens of a block that the mask has.
    #[inline(always)]
    pub fn take(&mut self, block: &[f32; BLOCK], index: usize, mut mask: u64, keys: &mut Vec<u64>) {
        if self.count > HELD - BLOCK {
            self.give(keys);
        }
        while mask != 0 {
            let place = mask.trailing_zeros() as usize;
            self.keys[self.count % HELD] = order::key(block[place % BLOCK], index * BLOCK + place);
            self.count += 1;
            mask &= mask - 1;
        }
    }

    /// Adds what is held to the list.
    #[inline(always)]
    pub fn give(&mut self, keys: &mut Vec<u64>) {
        keys.extend_from_slice(&self.keys[..self.count.min(HELD)]);
        self.count = 0;
    }
}
