//! Why a row has no answer.

use std::fmt;

/// What is wrong with one row of logits. It depends on the row alone, never on the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowError {
    /// The first NaN or +inf of the row.
    NotFinite {
        /// The token id at which it stands.
        id: usize,
        /// NaN or +inf.
        value: f32,
    },
    /// Every logit is -inf: nothing is left to choose from.
    Empty,
    /// Two reads of the row did not agree: another thread wrote to it during the call (see the module `kernels`).
    Changed,
    /// The memory to work on a row of this length cannot be had.
    OutOfMemory,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::NotFinite { id, value } if value.is_nan() => write!(f, "nan at id {id}"),
            RowError::NotFinite { id, .. } => write!(f, "inf at id {id}"),
            RowError::Empty => write!(f, "only -inf"),
            RowError::Changed => write!(f, "a change"),
            RowError::OutOfMemory => write!(f, "too many tokens for the memory"),
        }
    }
}

impl std::error::Error for RowError {}

/// Raises the capacity of a buffer to at least `capacity`, or returns an error if there is not enough memory.
#[inline(always)]
pub(crate) fn reserve<T>(buffer: &mut Vec<T>, capacity: usize) -> Result<(), RowError> {
    let more = capacity.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| RowError::OutOfMemory)
}
