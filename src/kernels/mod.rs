//! The steps of a row, one file an operation.
//!
//! A kernel is a safe loop over fixed blocks, `#[inline(always)]` so that the recipe that calls it is compiled as a whole
//! for each instruction set (`isa.rs`).
//!
//! # If another thread writes to the row
//!
//! A row that comes from Python is the caller's memory. Another thread of the caller may write to it while the kernels read it,
//! and nothing can prevent that at the price of one read. Such a call may draw a wrong token, or end in `RowError::Changed`. It
//! does not panic, loop for ever or touch other memory, because the kernels keep four rules:
//!
//! 1. No address depends on a logit. A block or token is found by its place, and the places that are kept between two passes are
//!    kept as ids in keys, in memory of the call's own. The one index that is computed from a weight (`top_p::bucket`) is clamped.
//! 2. A logit may have any bits at any read. The conversions are arithmetic on bits or saturate; none is unchecked.
//! 3. Where a second read has to agree with the first (the block holds its maximum, the masses reach the target), the answer is an
//!    `Option` or a `Result`, never `expect` or `unreachable!`.
//! 4. A loop that looks again has a bound that no logit changes: a ledger is refined twice, a survey widens its doubt until it has
//!    the whole row, a selection splits keys, which differ in their ids.
//!
//! Rust calls such a race undefined, and LLVM gives the value of a racing read no guarantee at all. The rules keep to what a
//! compiled read can do, which is to return the old bits, the new ones or a mixture. `changing_rows` in `recipe.rs` and
//! `tests/test_soundness.py` exercise it.

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

/// Logits a block. Four cache lines of float32: small enough that passing over one says much about its 64 tokens, large
/// enough that a row of 262,144 has only 4,096 maxima.
pub const BLOCK: usize = 64;

/// Makes a buffer's capacity at least `capacity`, or says that there is not so much memory.
pub(crate) fn reserve<T>(buffer: &mut Vec<T>, capacity: usize) -> Result<(), RowError> {
    let more = capacity.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| RowError::OutOfMemory)
}

/// The blocks whose maximum is at least `floor`, in their order: a comparison for each 64 of them.
#[inline(always)]
pub(crate) fn reaching<I: Vector>(maxima: &[f32], floor: f32) -> Reaching<'_, I> {
    Reaching { maxima, floor, end: 0, mask: 0, isa: PhantomData }
}

pub(crate) struct Reaching<'a, I> {
    maxima: &'a [f32],
    floor: f32,
    /// Where the maxima end that `mask` is about.
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
                    let mut padded = [f32::NAN; BLOCK]; // which reaches nothing
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
