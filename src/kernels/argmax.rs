//! Finds the maximum of every block, and from those the maximum of the row and its place.
//!
//! ```text
//! maxima = row.reshape(-1, 64).max(axis=1)      # the row padded with -inf
//! argmax = np.argmax(row)                       # the lowest id among the largest
//! ```
//!
//! This is the one pass over the logits that every operation needs. Later passes look at the maxima (1/64 of the row) and then
//! only at the blocks that can matter.
//!
//! Edge rules: a NaN or +inf anywhere makes the row invalid. -inf marks a banned token, and a row with nothing but -inf is
//! empty.
//!
//! How it is fast: the maxima of eight blocks are folded together, so that every comparison of the fold uses full registers.
//! Folding one block at a time took five times as long. One comparison tests two values for NaN. The pass does not keep track
//! of the index of the maximum; that is looked up afterwards, in the one block whose maximum equals the row's.

use super::BLOCK;
use crate::error::RowError;
use crate::logit::Logit;

/// How many values a loop body handles side by side: one AVX-512 register of float32, two of AVX2, four of SSE2 or NEON.
pub(crate) const LANES: usize = 16;

/// How many blocks have their maxima folded together.
pub(crate) const GROUP: usize = 8;

/// Returns the larger of two floats, as the vector instruction does, and `a` if one of them is NaN.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Fills `maxima` with the maximum of each block, and returns the maximum of the row or what is wrong with the row.
#[inline(always)]
pub fn block_maxima<T: Logit>(row: &[T], maxima: &mut Vec<f32>) -> Result<f32, RowError> {
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
    let row_maximum = maximum(maxima);
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

/// Returns eight values whose maximum is the maximum of the block, and sets a lane of `nan` if it contains a NaN.
#[inline(always)]
pub(crate) fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
    let mut lanes = [0f32; LANES];
    for lane in 0..LANES {
        let [a, b, c, d] = [0, 1, 2, 3].map(|part| block[part * LANES + lane]);
        let is_nan = (a.is_nan() | b.is_nan()) | (c.is_nan() | d.is_nan());
        nan[lane] |= if is_nan { u32::MAX } else { 0 };
        lanes[lane] = max(max(a, b), max(c, d));
    }
    let mut half = [0f32; GROUP];
    for lane in 0..GROUP {
        half[lane] = max(lanes[lane], lanes[lane + GROUP]);
    }
    half
}

/// Does the same for 16-bit floats, as integers that sort like the floats. `infinity` is the bit pattern of +inf.
#[inline(always)]
pub(crate) fn narrow_lanes(bits: impl Fn(usize) -> u16, infinity: i16, nan: &mut [u32; LANES]) -> [i16; GROUP] {
    let (mut keys, mut magnitudes) = ([0i16; BLOCK], [0i16; BLOCK]);
    for i in 0..BLOCK {
        let x = bits(i) as i16;
        keys[i] = turned(x);
        magnitudes[i] = x & i16::MAX;
    }
    for half in [BLOCK / 2, LANES] {
        for i in 0..half {
            keys[i] = keys[i].max(keys[i + half]);
            magnitudes[i] = magnitudes[i].max(magnitudes[i + half]);
        }
    }
    for lane in 0..LANES {
        nan[lane] |= if magnitudes[lane] > infinity { u32::MAX } else { 0 };
    }
    let mut half = [0; GROUP];
    for lane in 0..GROUP {
        half[lane] = keys[lane].max(keys[lane + GROUP]);
    }
    half
}

/// Converts the bits of a 16-bit float to an integer that sorts like the float, and back. For a negative number it flips all
/// bits below the sign.
#[inline(always)]
pub(crate) fn turned(bits: i16) -> i16 {
    bits ^ ((bits >> 15) & i16::MAX)
}

/// Computes `lanes.max(axis=1)` by halving eight rows of eight three times, with two rows in a register. Each step takes two
/// shuffles and one comparison.
#[inline(always)]
fn fold_together<L: Copy + Default>(lanes: &[[L; GROUP]; GROUP], max: impl Fn(L, L) -> L) -> [L; GROUP] {
    let mut fours = [[L::default(); GROUP]; 4]; // rows 2i and 2i + 1, four values of each
    for i in 0..4 {
        for j in 0..4 {
            fours[i][j] = max(lanes[2 * i][j], lanes[2 * i][j + 4]);
            fours[i][j + 4] = max(lanes[2 * i + 1][j], lanes[2 * i + 1][j + 4]);
        }
    }
    let mut twos = [[L::default(); GROUP]; 2]; // rows 4i, 4i + 2, 4i + 1, 4i + 3, two values of each
    for i in 0..2 {
        for j in [0, 1, 4, 5] {
            twos[i][j] = max(fours[2 * i][j], fours[2 * i][j + 2]);
            twos[i][j + 2] = max(fours[2 * i + 1][j], fours[2 * i + 1][j + 2]);
        }
    }
    let mut maxima = [L::default(); GROUP];
    for i in 0..2 {
        for (j, row) in [0, 2, 1, 3].into_iter().enumerate() {
            maxima[4 * i + row] = max(twos[i][2 * j], twos[i][2 * j + 1]);
        }
    }
    maxima
}

/// Returns the maximum of numbers without NaN, and -inf if there are no numbers.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = max(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| max(a, b))
}

/// Returns the lowest id whose logit is the row's maximum, or an error if the row no longer contains that logit.
#[inline(always)]
pub fn argmax<T: Logit>(row: &[T], maxima: &[f32], maximum: f32) -> Result<usize, RowError> {
    let at = maxima.iter().position(|&m| m == maximum).ok_or(RowError::Changed)?;
    let within = row[at * BLOCK..].iter().position(|x| x.to_f32() == maximum).ok_or(RowError::Changed)?;
    Ok(at * BLOCK + within)
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
