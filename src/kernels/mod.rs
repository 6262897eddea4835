//! The steps of a row, one file an operation.
//!
//! A kernel is a safe loop over fixed blocks, `#[inline(always)]` so that the recipe that calls it is compiled as a whole
//! for each instruction set (`isa.rs`).

pub mod argmax;
pub mod candidates;
pub mod draw;
pub mod mass;
pub mod order;
pub mod softmax;
pub mod top_k;
pub mod top_p;

use crate::logit::Logit;

/// Logits a block. Four cache lines of float32: small enough that passing over one says much about its 64 tokens, large
/// enough that a row of 262,144 has only 4,096 maxima.
pub const BLOCK: usize = 64;

/// Block `index` of a row, the last one padded with -inf.
#[inline(always)]
pub(crate) fn block<T: Logit>(row: &[T], index: usize) -> [T; BLOCK] {
    let start = index * BLOCK;
    match row[start..].first_chunk::<BLOCK>() {
        Some(block) => *block,
        None => {
            let mut padded = [T::NEG_INFINITY; BLOCK];
            padded[..row.len() - start].copy_from_slice(&row[start..]);
            padded
        }
    }
}
