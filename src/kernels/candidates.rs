//! Lists the tokens that can survive the filters, which are those of a prefix of the total order.
//!
//! ```text
//! ids = np.flatnonzero(keys <= last)            # keys as in order.rs
//! ```
//!
//! The list holds keys, in the order of the ids.
//!
//! How it is fast: a block whose maximum is too low is skipped. In the other blocks a comparison gives a mask of the tokens,
//! and only those tokens are visited. A list that turns out to be long is abandoned, because `prefix.rs` does not need one.

use super::order::{self, Prefix};
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Fills `keys` with the tokens of the prefix. Returns false, with an incomplete list, if there are more than `limit` of them.
#[inline(always)]
pub fn collect<R: Row>(row: &R, prefix: Prefix, limit: usize, keys: &mut Vec<u64>) -> bool {
    R::Isa::run(move || {
        keys.clear();
        let mut buffer = Buffer::new();
        let mut held = Held::default();
        for index in row.reaching(prefix.least()) {
            let block = row.block(index, &mut buffer);
            held.take(block, index, prefix.mask::<R::Isa>(block, index), keys);
            if keys.len() > limit {
                return false;
            }
        }
        held.give(keys);
        keys.len() <= limit
    })
}

/// Collects keys in a small array before they go to a list, because adding to the list costs more than storing in the array.
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
    /// Takes the tokens of a block that are set in the mask.
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

    /// Adds the collected keys to the list.
    #[inline(always)]
    pub fn give(&mut self, keys: &mut Vec<u64>) {
        keys.extend_from_slice(&self.keys[..self.count.min(HELD)]);
        self.count = 0;
    }
}
