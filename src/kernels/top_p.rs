//! Finds the nucleus, the smallest set of most probable tokens whose mass reaches a share of the total.
//!
//! ```text
//! order = np.lexsort((ids, -row))
//! need  = min(W, max(1, ceil(float64(p) * float64(W))))       # W is the mass of the tokens kept before
//! kept  = order[: np.searchsorted(np.cumsum(mass[order]), need) + 1]
//! ```
//!
//! A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The curious case of neural text degeneration" (ICLR 2020).
//!
//! Edge rules: at least one token is kept. The token that reaches the share is kept. Among equal logits the lower ids are
//! kept.
//!
//! How it is fast: nothing is sorted. The last token is found by selection (`select.rs`) in a list of tokens. A part of the
//! row is enough to guess which tokens to list.

use super::mass::{Mass, S};
use super::select::select;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

/// The number of buckets for each power of two.
const STEPS: usize = 32;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - STEPS.ilog2();
const BUCKETS: usize = (S as usize + 1) * STEPS + 1;

/// The share of the mass that a nucleus has.
#[derive(Clone, Copy)]
pub struct Share {
    pub p: f64,
    /// True if the nucleus must have more than the share, and false if as much is enough.
    pub is_exceeded: bool,
}

impl Share {
    /// Returns the mass that the nucleus must reach. It is at least 1, so that one token is kept even if the share is 0.
    #[inline(always)]
    pub fn need(self, total: u64) -> u64 {
        let share = self.p * total as f64;
        let need = if self.is_exceeded { share as u64 + 1 } else { share.ceil() as u64 };
        need.min(total).max(1)
    }
}

/// Returns a mass such that the tokens with at least this mass probably contain the nucleus and few others, and an estimate of
/// how many such tokens there are. Both come from 64 evenly spaced blocks of the row. The caller verifies the guess, and
/// lowers it where it does not hold.
///
/// The estimate works with the tokens that are left out, because those are many light tokens that are spread evenly. The heavy
/// tokens may not be in the sample.
#[inline(always)]
pub fn guess_least_mass<R: Row>(row: &R, mass: Mass, need: u64, total: u64) -> (u64, usize) {
    R::Isa::run(move || {
        const SAMPLE: usize = 64;
        /// The share of what may be left out that the guess does leave out: less than all, so that chance seldom makes it too
        /// high.
        const CAUTION: f32 = 0.75;
        let blocks = row.tokens() / BLOCK; // a last block that is not full is left out
        let step = (blocks / SAMPLE).max(1);
        let (mut sums, mut counts) = ([0f32; BUCKETS], [0u32; BUCKETS]);
        let mut buffer = Buffer::new();
        for index in (0..blocks).step_by(step) {
            for weight in mass.weights(row.block(index, &mut buffer)) {
                let bucket = bucket(f64::from(weight)).min(BUCKETS - 1);
                sums[bucket] += weight;
                counts[bucket] += 1;
            }
        }
        let most = total.saturating_sub(need) as f32 / step as f32 * CAUTION;
        let mut below = 0.0;
        let exceeding = sums.iter().position(|sum| {
            below += sum;
            below > most
        });
        let least = exceeding.unwrap_or(BUCKETS - 1);
        (lowest_mass(least), counts[least..].iter().sum::<u32>() as usize * step)
    })
}

/// Returns the key of the last token of the nucleus, from the keys and masses of a list that contains the nucleus. Returns
/// None if `low_need` and `high_need` lead to different tokens, or if all tokens together do not reach `low_need`.
#[inline(always)]
pub fn last_key(
    keys: &[u64],
    masses: &[u64],
    (low_need, high_need): (u64, u64),
    work: &mut Vec<(u64, u64)>,
) -> Option<u64> {
    work.clear();
    work.extend(keys.iter().copied().zip(masses.iter().copied()));
    let (last, mass) = select(work, |token| token.0, |token| token.1, low_need)?;
    (high_need <= mass).then_some(last)
}

/// Returns the bucket of a mass. Each power of two is cut into `STEPS` equal buckets, and a mass of 0 has bucket 0.
#[inline(always)]
fn bucket(mass: f64) -> usize {
    ((mass.to_bits() >> SHIFT) as usize + 1).saturating_sub(1023 * STEPS)
}

/// Returns the lowest mass of a bucket.
fn lowest_mass(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { f64::from_bits((bucket as u64 + 1023 * STEPS as u64 - 1) << SHIFT).ceil() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_never_decrease_and_stay_in_range() {
        let mut last = 0;
        let samples = (0..4096).chain((12..S).flat_map(|n| (8..16).map(move |step| (step << n) / 8))).chain([1 << S]);
        for mass in samples {
            assert!(bucket(mass as f64) >= last, "bucket of {mass}");
            last = bucket(mass as f64);
            assert!(lowest_mass(last) <= mass && mass < lowest_mass(last + 1), "the bucket of {mass} holds it");
        }
        assert_eq!(bucket(0.0), 0);
        assert!(bucket(1.0) > 0);
        assert_eq!(bucket((1u64 << S) as f64), BUCKETS - STEPS);
    }
}
