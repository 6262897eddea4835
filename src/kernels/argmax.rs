//! Finds the lowest id among the largest logits.
//!
//! ```text
//! argmax = np.argmax(row)
//! ```
//!
//! How it is fast: the pass that finds the maxima (`row.rs`) does not keep track of an index. It is looked up afterwards, in
//! the one block whose maximum equals the row's.

use crate::error::RowError;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Returns the lowest id whose logit is the row's maximum, or an error if the row no longer contains that logit.
#[inline(always)]
pub fn argmax<R: Row>(row: &R) -> Result<usize, RowError> {
    let at = row.maxima().iter().position(|&m| m == row.maximum()).ok_or(RowError::Changed)?;
    let mut buffer = Buffer::new();
    let within = row.block(at, &mut buffer).iter().position(|&x| x == row.maximum()).ok_or(RowError::Changed)?;
    Ok(at * BLOCK + within)
}
