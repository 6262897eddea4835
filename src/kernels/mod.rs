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

use crate::isa::Vector;
use crate::logit::Logit;

/// Logits a block. Four cache lines of float32: small enough that passing over one says much about its 64 tokens, large
/// enough that a row of 262,144 has only 4,096 maxima.
pub const BLOCK: usize = 64;

/// Where a block is made that is not in the row as it is wanted: as 64 float32.
pub(crate) struct Buffer<T> {
    padded: [T; BLOCK],
    widened: [f32; BLOCK],
}

impl<T: Logit> Buffer<T> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Buffer { padded: [T::NEG_INFINITY; BLOCK], widened: [0.0; BLOCK] }
    }
}

/// Block `index` of a row as float32, in place if it can be; the last one padded with -inf.
#[inline(always)]
pub(crate) fn block<'a, I: Vector, T: Logit>(
    row: &'a [T],
    index: usize,
    buffer: &'a mut Buffer<T>,
) -> &'a [f32; BLOCK] {
    let rest = &row[index * BLOCK..];
    let block = match rest.first_chunk::<BLOCK>() {
        Some(block) => block,
        None => {
            buffer.padded = [T::NEG_INFINITY; BLOCK];
            buffer.padded[..rest.len()].copy_from_slice(rest);
            &buffer.padded
        }
    };
    T::widen::<I>(block, &mut buffer.widened)
}
