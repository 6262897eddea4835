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
use super::select::select_from;
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::{Buffer, Row};

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

/// How many blocks are sampled for a guess: at least so many, and less than twice as many.
const SAMPLE: usize = 64;

/// Returns how many tokens of a row with this many are sampled at most.
pub fn most_sampled(tokens: usize) -> usize {
    tokens.min(2 * SAMPLE * BLOCK)
}

/// Returns a mass such that the tokens with at least this mass probably contain the nucleus and few others, and an estimate of
/// how many such tokens there are. Both come from evenly spaced blocks of the row. The caller verifies the guess, and lowers it
/// where it does not hold. `weights` is scratch.
///
/// The estimate works with the tokens that are left out, because those are many light tokens that are spread evenly. The heavy
/// tokens may not be in the sample.
#[inline(always)]
pub fn guess_least_mass<R: Row>(row: &R, mass: Mass, need: u64, total: u64, weights: &mut Vec<f32>) -> (u64, usize) {
    R::Isa::run(move || {
        /// The share of what may be left out that the guess does leave out: less than all, so that chance seldom makes it too
        /// high.
        const CAUTION: f32 = 0.75;
        /// The bits of a float32 below this one are 0 in the guess.
        const LAST_BIT: u32 = 1 << 18;
        let blocks = row.tokens() / BLOCK; // a last block that is not full is left out
        let step = (blocks / SAMPLE).max(1);
        weights.resize(blocks.div_ceil(step) * BLOCK, 0.0);
        let (weights, mut buffer) = (weights.as_chunks_mut::<BLOCK>().0, Buffer::new());
        for (index, weights) in (0..blocks).step_by(step).zip(&mut *weights) {
            *weights = mass.weights::<R::Isa>(row.block(index, &mut buffer));
        }
        let sampled = weights.as_flattened();
        let most = total.saturating_sub(need) as f32 / step as f32 * CAUTION;
        let (mut least, mut bit) = (0, 1 << 30);
        while bit >= LAST_BIT {
            let higher = f32::from_bits(least | bit);
            if higher <= (1u64 << S) as f32 && R::Isa::nearly_sum_below(sampled, higher, sampled) <= most {
                least |= bit;
            }
            bit /= 2;
        }
        let least = f32::from_bits(least).max(1.0);
        let count = |weights| R::Isa::at_least(weights, least).count_ones() as usize;
        (least.ceil() as u64, weights.iter().map(count).sum::<usize>() * step)
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
    let (last, mass) = select_from(keys, masses, low_need, work)?;
    (high_need <= mass).then_some(last)
}
