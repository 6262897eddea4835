//! Collects the tokens that can survive: those whose logit is at least a floor.
//!
//! ```text
//! ids = np.flatnonzero(row >= floor)
//! ```
//!
//! They come in id order, as keys of the total order (`order.rs`). A banned token (-inf) is never among them.
//!
//! How it is fast: a block whose maximum is below the floor is not looked at.

use super::{BLOCK, block, order};
use crate::logit::Logit;

/// Fills `keys` with the keys of the tokens whose logit is at least `floor`, which is finite.
#[inline(always)]
pub fn collect<T: Logit>(row: &[T], maxima: &[f32], floor: f32, keys: &mut Vec<u64>) {
    keys.clear();
    for (index, &maximum) in maxima.iter().enumerate() {
        if maximum >= floor {
            collect_block(&block(row, index), index * BLOCK, floor, keys);
        }
    }
}

/// Writes every key to the next free place and moves that place only past those that stay: no branch to mispredict.
#[inline(always)]
fn collect_block<T: Logit>(block: &[T; BLOCK], first_id: usize, floor: f32, keys: &mut Vec<u64>) {
    let mut kept = [0u64; BLOCK];
    let mut count = 0;
    for (within, x) in block.iter().enumerate() {
        let x = x.to_f32();
        kept[count % BLOCK] = order::key(x, first_id + within);
        count += usize::from(x >= floor);
    }
    keys.extend_from_slice(&kept[..count]);
}
