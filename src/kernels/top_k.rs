//! Finds the k largest logits by partial selection.
//!
//! ```text
//! ids = np.lexsort((ids, -row))[:k]
//! ```
//!
//! Edge rules: exactly k tokens are kept, and ties at the last place go to the lower ids. Fewer are kept only if fewer are
//! finite.
//!
//! How it is fast: if k blocks have a maximum of at least x, then at least k tokens have a logit of at least x. So the k-th
//! largest block maximum is a floor that every one of the top k reaches, and few others do. The k-th largest of many maxima is
//! found in the same way, from the maxima of groups of maxima. Where ties would make the list long, or where k is large,
//! passes over the row find the last of the k (`prefix.rs`).

use super::select::select;
use crate::isa::Vector;
use crate::lanes::max;
use crate::row::Row;

/// The most maxima in a group.
const GROUP: usize = 16;

/// Returns a logit that each of the k largest reaches. 1 <= k.
#[inline(always)]
pub fn floor<R: Row>(row: &R, k: usize, work: &mut Vec<f32>) -> f32 {
    let maxima = row.maxima();
    if k > maxima.len() {
        return f32::MIN; // all tokens that are not banned reach it
    }
    R::Isa::run(move || {
        work.clear();
        if k <= maxima.len() / GROUP {
            // Only maxima that reach the k-th largest group maximum can be among the k largest. The members of a group are
            // spread over the row, so that the maxima of many groups can be found side by side.
            let (first, rest) = maxima.split_at(maxima.len().div_ceil(GROUP));
            work.extend_from_slice(first);
            for next in rest.chunks(first.len()) {
                for (maximum, &m) in work.iter_mut().zip(next) {
                    *maximum = max(*maximum, m);
                }
            }
            let least = kth_largest(work, k).max(f32::MIN);
            work.clear();
            for index in row.reaching(least) {
                work.push(maxima[index]);
            }
            if work.len() < k {
                return f32::MIN; // most blocks are banned
            }
        } else {
            work.extend_from_slice(maxima);
        }
        kth_largest(work, k).max(f32::MIN)
    })
}

/// Returns the k-th largest of the values, and reorders them. 1 <= k <= values.len(), and none is NaN.
#[inline(always)]
fn kth_largest(values: &mut [f32], k: usize) -> f32 {
    *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Returns the last of the k smallest keys, or a key after all others if there are fewer than k. `work` is scratch. 1 <= k.
#[inline(always)]
pub fn last_key(keys: &[u64], k: usize, work: &mut Vec<u64>) -> u64 {
    if k > keys.len() {
        return u64::MAX;
    }
    work.clear();
    work.extend_from_slice(keys);
    select(work, |key| key, |_| 1, k as u64).map_or(u64::MAX, |(last, _)| last)
}
