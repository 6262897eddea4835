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
//! Edge rules: a NaN or +inf anywhere makes the row invalid, unless its token is not allowed. -inf marks a banned token, and a
//! row with nothing but -inf is empty.
//!
//! How it is fast: the maxima of eight blocks are folded together, so that every comparison of the fold uses full registers.
//! Folding one block at a time took five times as long. One comparison tests two values for NaN. Where a bitmask bans whole
//! blocks, these are never read.

use std::marker::PhantomData;

use crate::changes::Changes;
use crate::context::Context;
use crate::error::RowError;
use crate::isa::Vector;
use crate::lanes::{self, BLOCK, GROUP, LANES};
use crate::logit::Logit;
use crate::methods::Edit;

/// A row of logits as the kernels read it, in the clone for an instruction set.
pub(crate) trait Row: Copy {
    /// The instruction set.
    type Isa: Vector;
    /// The type of logit.
    type Logit: Logit;

    /// Returns the number of tokens.
    #[inline(always)]
    fn tokens(&self) -> usize {
        self.stored().len()
    }

    /// Returns the largest logit, which is finite.
    fn maximum(&self) -> f32;

    /// Returns the largest logit of each block.
    fn maxima(&self) -> &[f32];

    /// Returns the logits as they are in memory, without any changes.
    fn stored(&self) -> &[Self::Logit];

    /// Returns the logit of a token.
    fn logit(&self, id: usize) -> f32;

    /// Returns a block as float32, without a copy where possible. The last block is padded with -inf.
    fn block<'b>(&'b self, index: usize, buffer: &'b mut Buffer<Self::Logit>) -> &'b [f32; BLOCK];

    /// Iterates, in order, over the blocks whose maximum is at least `floor`. One comparison handles 64 of them.
    #[inline(always)]
    fn reaching(&self, floor: f32) -> Reaching<'_, Self::Isa> {
        self.between(floor, f32::INFINITY)
    }

    /// Iterates, in order, over the blocks whose maximum is at least `floor` and below `limit`.
    #[inline(always)]
    fn between(&self, floor: f32, limit: f32) -> Reaching<'_, Self::Isa> {
        Reaching { maxima: self.maxima(), floor, limit, end: 0, mask: 0, isa: PhantomData }
    }
}

/// A row as it is in memory.
pub(crate) struct Plain<'a, I, T> {
    logits: &'a [T],
    maxima: &'a [f32],
    maximum: f32,
    isa: PhantomData<I>,
}

/// A row of which not every token may be allowed, and of which some logits were edited.
pub(crate) struct Changed<'a, I, T> {
    plain: Plain<'a, I, T>,
    changes: &'a Changes,
}

impl<I, T> Clone for Plain<'_, I, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, T> Copy for Plain<'_, I, T> {}

impl<I, T> Clone for Changed<'_, I, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, T> Copy for Changed<'_, I, T> {}

impl<'a, I: Vector, T: Logit> Plain<'a, I, T> {
    /// Makes the pass over the logits, which fills `maxima`, and returns an error if the row has no answer.
    #[inline(always)]
    pub fn read(logits: &'a [T], maxima: &'a mut Vec<f32>) -> Result<Self, RowError> {
        let maximum = block_maxima::<I, T>(logits, None, maxima)?;
        Ok(Plain { logits, maxima, maximum, isa: PhantomData })
    }
}

impl<I: Vector, T: Logit> Row for Plain<'_, I, T> {
    type Isa = I;
    type Logit = T;

    #[inline(always)]
    fn maximum(&self) -> f32 {
        self.maximum
    }

    #[inline(always)]
    fn maxima(&self) -> &[f32] {
        self.maxima
    }

    #[inline(always)]
    fn stored(&self) -> &[T] {
        self.logits
    }

    #[inline(always)]
    fn logit(&self, id: usize) -> f32 {
        self.logits[id].to_f32()
    }

    #[inline(always)]
    fn block<'b>(&'b self, index: usize, buffer: &'b mut Buffer<T>) -> &'b [f32; BLOCK] {
        stored_block::<I, T>(self.logits, index, &mut buffer.stored)
    }
}

impl<'a, I: Vector, T: Logit> Changed<'a, I, T> {
    /// Makes the pass over the allowed logits and edits those of which the context says something. Only the last `window`
    /// tokens of the history count. `find` may ban tokens and note others, before it makes the places for all that are noted.
    #[inline(always)]
    pub fn read(
        logits: &'a [T],
        context: &Context<'_>,
        window: u64,
        find: impl FnOnce(&mut Changes) -> Result<(), RowError>,
        edit: Edit<'_>,
        maxima: &'a mut Vec<f32>,
        changes: &'a mut Changes,
    ) -> Result<Self, RowError> {
        changes.begin(logits.len(), context.bitmask);
        let (prompt_ids, output_ids) = context.history(window);
        let biased = context.biases.iter().map(|(id, _)| id);
        changes.note(biased.chain(prompt_ids).chain(output_ids), logits.len());
        for &(id, bias) in context.biases {
            if bias == f32::NEG_INFINITY {
                changes.ban(id);
            }
        }
        find(changes)?;
        block_maxima::<I, T>(logits, changes.allowed(), maxima)?;
        if changes.has_edits() {
            changes.see(prompt_ids, output_ids);
            for &(id, bias) in context.biases {
                changes.bias(id, bias);
            }
            changes.edit(
                |id| logits[id].to_f32(),
                edit,
                |index, largest_old, largest_new| {
                    let maximum = &mut maxima[index];
                    let is_stale = largest_old == *maximum && largest_new < *maximum;
                    *maximum = lanes::max(*maximum, largest_new);
                    is_stale
                },
            );
            let mut buffer = Buffer::new();
            for &index in changes.stale() {
                let index = index as usize;
                let block = stored_block::<I, T>(logits, index, &mut buffer.stored);
                maxima[index] = lanes::maximum(changes.apply::<I>(index, block, &mut buffer.changed));
            }
        }
        let maximum = lanes::maximum(maxima);
        if maximum == f32::NEG_INFINITY {
            return Err(RowError::Empty);
        }
        Ok(Changed { plain: Plain { logits, maxima, maximum, isa: PhantomData }, changes })
    }
}

impl<I: Vector, T: Logit> Row for Changed<'_, I, T> {
    type Isa = I;
    type Logit = T;

    #[inline(always)]
    fn maximum(&self) -> f32 {
        self.plain.maximum
    }

    #[inline(always)]
    fn maxima(&self) -> &[f32] {
        self.plain.maxima
    }

    #[inline(always)]
    fn stored(&self) -> &[T] {
        self.plain.logits
    }

    #[inline(always)]
    fn logit(&self, id: usize) -> f32 {
        self.changes.logit(id, self.plain.logit(id))
    }

    #[inline(always)]
    fn block<'b>(&'b self, index: usize, buffer: &'b mut Buffer<T>) -> &'b [f32; BLOCK] {
        let block = stored_block::<I, T>(self.plain.logits, index, &mut buffer.stored);
        self.changes.apply::<I>(index, block, &mut buffer.changed)
    }
}

/// Scratch space for a block that is not in memory as it is wanted.
pub(crate) struct Buffer<T> {
    stored: Stored<T>,
    /// A copy that was changed.
    changed: Option<[f32; BLOCK]>,
}

/// Scratch space for a block that must be padded to 64 values or widened to float32.
struct Stored<T> {
    padded: [T; BLOCK],
    widened: [f32; BLOCK],
}

impl<T: Logit> Buffer<T> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let stored = Stored { padded: [T::NEG_INFINITY; BLOCK], widened: [0.0; BLOCK] };
        Buffer { stored, changed: None }
    }
}

/// Returns a block of the logits in memory as float32.
#[inline(always)]
fn stored_block<'b, I: Vector, T: Logit>(logits: &'b [T], index: usize, buffer: &'b mut Stored<T>) -> &'b [f32; BLOCK] {
    let rest = &logits[index * BLOCK..];
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

/// See [`Row::between`].
pub(crate) struct Reaching<'a, I> {
    maxima: &'a [f32],
    floor: f32,
    limit: f32,
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
            let mask = |chunk: &[f32; BLOCK]| {
                let reached = I::at_least(chunk, self.floor);
                if self.limit == f32::INFINITY { reached } else { reached & !I::at_least(chunk, self.limit) }
            };
            self.mask = match rest.first_chunk::<BLOCK>() {
                Some(chunk) => mask(chunk),
                None => {
                    let mut padded = [f32::NAN; BLOCK]; // NaN does not reach any floor
                    padded[..rest.len()].copy_from_slice(rest);
                    mask(&padded)
                }
            };
            self.end += BLOCK;
        }
        let place = self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(self.end - BLOCK + place)
    }
}

/// Fills `maxima` with the maximum of each block, and returns the maximum of the row or what is wrong with the row. If not
/// every token is allowed, each block has a word that says which ones are.
#[inline(always)]
fn block_maxima<I: Vector, T: Logit>(
    row: &[T],
    allowed: Option<&[u64]>,
    maxima: &mut Vec<f32>,
) -> Result<f32, RowError> {
    maxima.clear();
    maxima.resize(row.len().div_ceil(BLOCK).next_multiple_of(GROUP), f32::NEG_INFINITY);
    let (groups, rest) = row.as_chunks::<{ GROUP * BLOCK }>();
    let mut nan = [0u32; LANES];
    for ((index, group), maxima) in groups.iter().enumerate().zip(maxima.as_chunks_mut::<GROUP>().0) {
        *maxima = allowed_maxima::<I, T>(group, allowed, index * GROUP, &mut nan);
    }
    let index = groups.len() * GROUP;
    if rest.len() > BLOCK {
        let mut padded = [T::NEG_INFINITY; GROUP * BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        maxima[index..].copy_from_slice(&allowed_maxima::<I, T>(&padded, allowed, index, &mut nan));
    } else if !rest.is_empty() {
        // A single block, which is all that a short row has.
        let (mut padded, mut widened) = ([T::NEG_INFINITY; BLOCK], [0.0; BLOCK]);
        padded[..rest.len()].copy_from_slice(rest);
        let block = T::widen::<I>(&padded, &mut widened);
        let allowed = allowed.map_or(u64::MAX, |words| words[index]);
        let [a, b, c, d, e, f, g, h] = I::lanes(&I::allowed(block, allowed), &mut nan);
        let max = lanes::max;
        maxima[index] = max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)));
    }
    maxima.truncate(row.len().div_ceil(BLOCK));
    let row_maximum = lanes::maximum(maxima);
    if nan.iter().any(|&lane| lane != 0) || row_maximum == f32::INFINITY {
        let is_known = allowed.is_some() && row_maximum < f32::INFINITY && !maxima.iter().any(|x| x.is_nan());
        match first_not_finite::<I, T>(row, allowed) {
            Some(error) => return Err(error),
            None if is_known => {} // the NaN that was seen is not allowed
            None => return Err(RowError::Changed),
        }
    }
    if row_maximum == f32::NEG_INFINITY {
        return Err(RowError::Empty);
    }
    Ok(row_maximum)
}

/// Returns the maxima of the allowed tokens of eight blocks, the first of which is block number `index`. Sets a lane of `nan`
/// if one of these tokens has NaN, and sometimes if another one has.
#[inline(always)]
fn allowed_maxima<I: Vector, T: Logit>(
    group: &[T; GROUP * BLOCK],
    allowed: Option<&[u64]>,
    index: usize,
    nan: &mut [u32; LANES],
) -> [f32; GROUP] {
    let Some(allowed) = allowed else { return group_maxima::<I, T>(group, nan) };
    let mut padded = [0; GROUP];
    let words = match allowed[index..].first_chunk::<GROUP>() {
        Some(words) => words,
        None => {
            padded[..allowed.len() - index].copy_from_slice(&allowed[index..]);
            &padded
        }
    };
    if *words == [u64::MAX; GROUP] {
        return group_maxima::<I, T>(group, nan);
    }
    let mut lanes = [[f32::NEG_INFINITY; GROUP]; GROUP];
    let mut widened = [0.0; BLOCK];
    let blocks = group.as_chunks::<BLOCK>().0;
    if words.contains(&0) {
        for ((lanes, block), &word) in lanes.iter_mut().zip(blocks).zip(words) {
            if word != 0 {
                *lanes = I::allowed_lanes(T::widen::<I>(block, &mut widened), word, nan);
            }
        }
    } else {
        // Without a branch for each block, the CPU works on several blocks at once.
        for ((lanes, block), &word) in lanes.iter_mut().zip(blocks).zip(words) {
            *lanes = I::allowed_lanes(T::widen::<I>(block, &mut widened), word, nan);
        }
    }
    I::fold_together(&lanes)
}

/// Returns the maxima of eight blocks, and sets a lane of `nan` if they contain a NaN.
#[inline(always)]
fn group_maxima<I: Vector, T: Logit>(group: &[T; GROUP * BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
    let mut lanes = [[0.0; GROUP]; GROUP];
    for (lanes, block) in lanes.iter_mut().zip(group.as_chunks::<BLOCK>().0) {
        *lanes = T::lanes::<I>(block, nan);
    }
    I::fold_together(&lanes)
}

/// Returns the error for the first NaN or +inf of an allowed token, if there is one. This is off the fast path.
#[cold]
#[inline(never)]
fn first_not_finite<I: Vector, T: Logit>(row: &[T], allowed: Option<&[u64]>) -> Option<RowError> {
    let mut buffer = Buffer::new();
    let found = I::run(|| {
        (0..row.len().div_ceil(BLOCK)).find_map(|index| {
            let block = stored_block::<I, T>(row, index, &mut buffer.stored);
            let finite = I::at_least(block, f32::NEG_INFINITY) & !I::at_least(block, f32::INFINITY);
            let found = !finite & allowed.map_or(u64::MAX, |words| words[index]);
            let place = found.trailing_zeros() as usize;
            (found != 0).then(|| (index * BLOCK + place, block[place]))
        })
    });
    found.map(|(id, value)| RowError::NotFinite { id, value })
}
