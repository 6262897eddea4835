//! The steps that the work on a row is made of, one file for each operation.
//!
//! A kernel is a safe loop over fixed blocks. It is `#[inline(always)]`, so that the whole recipe that calls it is compiled
//! for each instruction set (`isa.rs`).
//!
//! # If another thread writes to the row
//!
//! A row that comes from Python is in the caller's memory. Another thread of the caller may write to it while the kernels read
//! it, and nothing that costs as little as one read can prevent that. Such a call may draw a wrong token, or it may end in
//! `RowError::Changed`. It does not panic, loop forever or touch other memory, because the kernels follow four rules:
//!
//! 1. No address depends on a logit. A block or a token is found by its place. Places that must be remembered between two
//!    passes are ids inside keys, in memory that belongs to the call. The one index that is computed from a weight
//!    (`top_p::bucket`) is clamped.
//! 2. A logit may have any bits each time it is read. The conversions are arithmetic on bits, or they saturate; none is
//!    unchecked.
//! 3. Where a second read must agree with the first (the block holds its maximum, the masses reach the target), the answer is
//!    an `Option` or a `Result`. It is never left to `expect` or `unreachable!`.
//! 4. A loop that looks again has a bound that no logit can change. A ledger is refined twice. A survey widens its doubt until
//!    it covers the whole row. A selection splits keys, and keys always differ because they contain the ids.
//!
//! Rust calls such a race undefined behavior, and LLVM does not guarantee anything about the value that a racing read returns.
//! The rules rely on what a compiled read can do, which is to return the old bits, the new bits or a mixture of them. The
//! tests are `changing_rows` in `recipe.rs` and `tests/test_soundness.py`.

pub mod argmax;
pub mod candidates;
pub mod draw;
pub mod ledger;
pub mod mass;
pub mod order;
pub mod prefix;
pub mod select;
pub mod softmax;
pub mod survey;
pub mod top_k;
pub mod top_p;

use std::marker::PhantomData;

use crate::error::RowError;
use crate::isa::Vector;
use crate::logit::Logit;

/// The number of logits in a block. A block is four cache lines of float32. It is small enough that its maximum says much
/// about its 64 tokens, and large enough that a row of 262,144 logits has only 4,096 maxima.
pub const BLOCK: usize = 64;

/// Raises the capacity of a buffer to at least `capacity`, or returns an error if there is not enough memory.
pub(crate) fn reserve<T>(buffer: &mut Vec<T>, capacity: usize) -> Result<(), RowError> {
    let more = capacity.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| RowError::OutOfMemory)
}

/// Iterates, in order, over the blocks whose maximum is at least `floor`. One comparison handles 64 of them.
#[inline(always)]
pub(crate) fn reaching<I: Vector>(maxima: &[f32], floor: f32) -> Reaching<'_, I> {
    Reaching { maxima, floor, end: 0, mask: 0, isa: PhantomData }
}

pub(crate) struct Reaching<'a, I> {
    maxima: &'a [f32],
    floor: f32,
    /// The end of the range of maxima that `mask` describes.
    end: usize,
    mask: u64,
    isa: PhantomData<I>,
}

impl<I: Vector> Iterator for Reaching<'_, I> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            let rest = self.maxima.get(self.end..).filter(|rest| !rest.is_empty())?;
            self.mask = match rest.first_chunk::<BLOCK>() {
                Some(chunk) => I::at_least(chunk, self.floor),
                None => {
                    let mut padded = [f32::NAN; BLOCK]; // NaN does not reach any floor
                    padded[..rest.len()].copy_from_slice(rest);
                    I::at_least(&padded, self.floor)
                }
            };
            self.end += BLOCK;
        }
        let place = self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(self.end - BLOCK + place)
    }
}

/// Scratch space for a block that must be padded to 64 values or widened to float32.
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

/// Returns block `index` of a row as float32, without a copy where possible. The last block is padded with -inf.
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
