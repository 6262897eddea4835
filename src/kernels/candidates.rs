//! Collects the tokens that can survive: those whose logit is at least a floor.
//!
//! ```text
//! ids = np.flatnonzero(row >= floor)
//! ```
//!
//! They come in id order, as keys of the total order (`order.rs`). A banned token (-inf) is never among them.
//!
//! How it is fast: a block whose maximum is below the floor is not looked at; of the others, one comparison gives a mask of
//! the tokens, and only those are visited.

use super::{BLOCK, block, order};
use crate::isa::Vector;
use crate::logit::Logit;

/// Keys that are held back before they are added to the list, which costs more than a store.
const HELD: usize = 1024;

/// Fills `keys` with the keys of the tokens whose logit is at least `floor`, which is finite.
#[inline(always)]
pub fn collect<I: Vector, T: Logit>(row: &[T], maxima: &[f32], floor: f32, keys: &mut Vec<u64>) {
    keys.clear();
    let (mut padded, mut widened) = ([T::NEG_INFINITY; BLOCK], [0f32; BLOCK]);
    let (mut held, mut count) = ([0u64; HELD], 0);
    for (index, &maximum) in maxima.iter().enumerate() {
        if maximum >= floor {
            let block = T::widen(block(row, index, &mut padded), &mut widened);
            let mut mask = I::at_least(block, floor);
            while mask != 0 {
                let place = mask.trailing_zeros() as usize;
                held[count % HELD] = order::key(block[place % BLOCK], index * BLOCK + place);
                count += 1;
                mask &= mask - 1;
            }
            if count > HELD - BLOCK {
                keys.extend_from_slice(&held[..count]);
                count = 0;
            }
        }
    }
    keys.extend_from_slice(&held[..count]);
}
