//! Copies a row, with each logit changed by a function.
//!
//! ```text
//! out = function(row)
//! ```
//!
//! How it is fast: the function is inlined, and has no branch.

use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// Fills `out`, which has the length of the row.
#[inline(always)]
pub fn map<R: Row>(row: &R, function: impl Fn(f32) -> f32, out: &mut [f32]) {
    R::Isa::run(move || {
        let mut buffer = Buffer::new();
        for (index, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut block = *row.block(index, &mut buffer);
            for x in &mut block {
                *x = function(*x);
            }
            out.copy_from_slice(&block[..out.len()]);
        }
    });
}
