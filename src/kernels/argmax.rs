//! Finds the lowest id among the largest logits.
//!
//! ```text
//! argmax = np.argmax(row)
//! ```
//!
//! How it is fast: the pass that finds the maxima (`row.rs`) does not keep track of an index. It is looked up afterwards, in
//! the one block whose maximum equals the row's.

use crate::error::RowError;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::logit::Logit;
use crate::row::Row;

/// Returns the lowest id whose logit is the row's maximum, or an error if the row no longer contains that logit.
#[inline(always)]
pub fn argmax<I: Vector, T: Logit>(row: &Row<'_, I, T>) -> Result<usize, RowError> {
    let at = row.maxima().iter().position(|&m| m == row.maximum()).ok_or(RowError::Changed)?;
    let mut rest = row.stored()[at * BLOCK..].iter();
    let within = rest.position(|x| x.to_f32() == row.maximum()).ok_or(RowError::Changed)?;
    Ok(at * BLOCK + within)
}
