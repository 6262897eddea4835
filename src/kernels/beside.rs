//! Finds the logits of a row that are next to a limit.
//!
//! ```text
//! row[row < limit].max();  row[row >= limit].min()
//! ```
//!
//! Edge rule: where there is no such logit, the result is -inf or +inf.

use crate::isa::Vector;
use crate::lanes::{self, BLOCK, max};
use crate::row::{Buffer, Row};

/// Returns the largest logit that is below a limit.
#[inline(always)]
pub fn largest_below<R: Row>(row: &R, limit: f32) -> f32 {
    R::Isa::run(move || {
        let (mut largest, mut buffer) = ([f32::NEG_INFINITY; BLOCK], Buffer::new());
        for index in 0..row.maxima().len() {
            if row.maxima()[index] < limit {
                largest[0] = max(largest[0], row.maxima()[index]);
                continue;
            }
            for (largest, &x) in largest.iter_mut().zip(row.block(index, &mut buffer)) {
                *largest = if x < limit { max(*largest, x) } else { *largest };
            }
        }
        lanes::maximum(&largest)
    })
}

/// Returns the smallest logit that is at least as large as a limit.
#[inline(always)]
pub fn smallest_from<R: Row>(row: &R, limit: f32) -> f32 {
    R::Isa::run(move || {
        let (mut largest, mut buffer) = ([f32::NEG_INFINITY; BLOCK], Buffer::new());
        for index in row.reaching(limit) {
            for (largest, &x) in largest.iter_mut().zip(row.block(index, &mut buffer)) {
                *largest = if x >= limit { max(*largest, -x) } else { *largest };
            }
        }
        -lanes::maximum(&largest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;
    use crate::row::Plain;

    #[test]
    fn they_are_those_of_a_sorted_row() {
        let logits: Vec<f32> = (0..1000).map(|id| (id * 37 % 1000) as f32 / 2.0).collect();
        let mut maxima = Vec::new();
        let row = Plain::<Portable, f32>::read(&logits, &mut maxima).unwrap();
        for (limit, below, from) in
            [(0.0, f32::NEG_INFINITY, 0.0), (3.1, 3.0, 3.5), (7.5, 7.0, 7.5), (499.6, 499.5, f32::INFINITY)]
        {
            assert_eq!((largest_below(&row, limit), smallest_from(&row, limit)), (below, from));
        }
    }
}
