//! A row of logits with the maximum of each block: what every operation reads the logits through.
//!
//! ```text
//! maxima  = row.reshape(-1, 64).max(axis=1)     # the row padded with -inf
//! maximum = row.max()
//! ```
//!
//! Finding the maxima is the one pass over the logits that every operation needs. Later passes look at the maxima (1/64 of the
//! row) and then only at the blocks that can matter.
//!
//! Edge rules: a NaN or +inf anywhere makes the row invalid. -inf marks a banned token, and a row with nothing but -inf is
//! empty.
//!
//! How it is fast: the maxima of eight blocks are folded together, so that every comparison of the fold uses full registers.
//! Folding one block at a time took five times as long. One comparison tests two values for NaN.

use std::marker::PhantomData;

use crate::error::RowError;
use crate::isa::Vector;
use crate::lanes::{self, BLOCK, GROUP, LANES, fold_together};
use crate::logit::Logit;

/// A row of logits of type `T`, as a clone for the instruction set `I` reads it.
pub(crate) struct Row<'a, I, T> {
    logits: &'a [T],
    maxima: &'a [f32],
    maximum: f32,
    isa: PhantomData<I>,
}

impl<I, T> Clone for Row<'_, I, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, T> Copy for Row<'_, I, T> {}

impl<'a, I: Vector, T: Logit> Row<'a, I, T> {
    /// Makes the pass over the logits, which fills `maxima`, and returns an error if the row has no answer.
    #[inline(always)]
    pub fn read(logits: &'a [T], maxima: &'a mut Vec<f32>) -> Result<Self, RowError> {
        let maximum = block_maxima(logits, maxima)?;
        Ok(Row { logits, maxima, maximum, isa: PhantomData })
    }

    /// Returns the number of tokens.
    #[inline(always)]
    pub fn tokens(&self) -> usize {
        self.logits.len()
    }

    /// Returns the largest logit, which is finite.
    #[inline(always)]
    pub fn maximum(&self) -> f32 {
        self.maximum
    }

    /// Returns the largest logit of each block.
    #[inline(always)]
    pub fn maxima(&self) -> &'a [f32] {
        self.maxima
    }

    /// Returns the logits as they are stored.
    #[inline(always)]
    pub fn stored(&self) -> &'a [T] {
        self.logits
    }

    /// Returns a block as float32, without a copy where possible. The last block is padded with -inf.
    #[inline(always)]
    pub fn block<'b>(&self, index: usize, buffer: &'b mut Buffer<T>) -> &'b [f32; BLOCK]
    where
        'a: 'b,
    {
        let rest = &self.logits[index * BLOCK..];
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

    /// Iterates, in order, over the blocks whose maximum is at least `floor`. One comparison handles 64 of them.
    #[inline(always)]
    pub fn reaching(&self, floor: f32) -> Reaching<'a, I> {
        Reaching { maxima: self.maxima, floor, end: 0, mask: 0, isa: PhantomData }
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

/// See [`Row::reaching`].
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

/// Fills `maxima` with the maximum of each block, and returns the maximum of the row or what is wrong with the row.
#[inline(always)]
fn block_maxima<T: Logit>(row: &[T], maxima: &mut Vec<f32>) -> Result<f32, RowError> {
    maxima.clear();
    maxima.resize(row.len().div_ceil(BLOCK).next_multiple_of(GROUP), f32::NEG_INFINITY);
    let (groups, rest) = row.as_chunks::<{ GROUP * BLOCK }>();
    let mut nan = [0u32; LANES];
    for (maxima, group) in maxima.as_chunks_mut::<GROUP>().0.iter_mut().zip(groups) {
        *maxima = group_maxima(group, &mut nan);
    }
    if !rest.is_empty() {
        let mut padded = [T::NEG_INFINITY; GROUP * BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        maxima[groups.len() * GROUP..].copy_from_slice(&group_maxima(&padded, &mut nan));
    }
    maxima.truncate(row.len().div_ceil(BLOCK));
    let row_maximum = lanes::maximum(maxima);
    if nan.iter().any(|&lane| lane != 0) || row_maximum == f32::INFINITY {
        return Err(first_not_finite(row));
    }
    if row_maximum == f32::NEG_INFINITY {
        return Err(RowError::Empty);
    }
    Ok(row_maximum)
}

/// Returns the maxima of eight blocks, and sets a lane of `nan` if they contain a NaN.
#[inline(always)]
fn group_maxima<T: Logit>(group: &[T; GROUP * BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
    let mut lanes = [[T::Lane::default(); GROUP]; GROUP];
    for (lanes, block) in lanes.iter_mut().zip(group.as_chunks::<BLOCK>().0) {
        *lanes = T::lanes(block, nan);
    }
    fold_together(&lanes, T::larger).map(T::of_lane)
}

/// Returns the error for the first NaN or +inf of a row in which one was seen. This is off the fast path.
#[cold]
#[inline(never)]
fn first_not_finite<T: Logit>(row: &[T]) -> RowError {
    let mut values = row.iter().map(|x| x.to_f32()).enumerate();
    match values.find(|(_, x)| x.is_nan() || *x == f32::INFINITY) {
        Some((id, value)) => RowError::NotFinite { id, value },
        None => RowError::Changed,
    }
}
