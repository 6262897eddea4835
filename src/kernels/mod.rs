//! The steps of a row, one file an operation.
//!
//! A kernel is a safe loop over fixed blocks, `#[inline(always)]` so that the recipe that calls it is compiled as a whole
//! for each instruction set (`isa.rs`).

pub mod argmax;
pub mod candidates;
pub mod draw;
pub mod ledger;
pub mod mass;
pub mod order;
pub mod prefix;
pub mod softmax;
pub mod survey;
pub mod top_k;
pub mod top_p;

use crate::logit::Logit;

/// Logits a block. Four cache lines of float32: small enough that passing over one says much about its 64 tokens, large
/// enough that a row of 262,144 has only 4,096 maxima.
pub const BLOCK: usize = 64;

/// Block `index` of a row, in place; the last one padded with -inf in `padded`, if it is not whole.
#[inline(always)]
pub(crate) fn block<'a, T: Logit>(row: &'a [T], index: usize, padded: &'a mut [T; BLOCK]) -> &'a [T; BLOCK] {
    let rest = &row[index * BLOCK..];
    match rest.first_chunk::<BLOCK>() {
        Some(block) => block,
        None => {
            *padded = [T::NEG_INFINITY; BLOCK];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        }
    }
}
