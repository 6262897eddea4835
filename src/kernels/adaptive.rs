//! Gives tokens the masses of adaptive-p: the nearer a token's probability is to a center, the heavier it becomes.
//!
//! ```text
//! share = np.rint(mass / float64(W) * 2**24)                  # W is the mass of all these tokens
//! d     = abs(share / 2**24 - center) / 0.3
//! fall  = 10 * d * d / (1 + d) * log2(e)                      # in bits
//! mass  = np.rint(2.0 ** (min(fall) - fall) * 2**S)           # the power by the series of series.rs
//! ```
//!
//! Each operation is in float64 and rounded once, and none is fused.
//!
//! Edge rule: the heaviest token has a mass of 2**S, and because no fall is more than 37 bits, every token has a mass.
//!
//! How it is fast: the new mass of a token depends on its share alone. Where tokens are listed, one in a list seldom differs from
//! the one before. Where they are too many for a list, a pass computes the new masses of blocks. Only few shares are large,
//! because all of them add up to 2**24, so the new mass of each small share is computed once and looked up. Most tokens of a
//! peaked row have a share of 0, and are only counted.

use super::beside;
use super::draw::{self, Drawn};
use super::mass::{Mass, S};
use super::order::{self, Prefix};
use super::series::exp2;
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::{BLOCK, ROUND64};
use crate::row::{Buffer, Row};

const GRID: f64 = (1 << 24) as f64;
const WIDTH: f64 = 0.3;
const SHARPNESS: f64 = 10.0;

/// How the masses of tokens, which together are `total`, are replaced around a center.
#[derive(Clone, Copy, Debug, Default)]
struct Curve {
    total: f64,
    center: f64,
    /// The fall of the token that falls least.
    least: f64,
}

impl Curve {
    /// Returns the share that a mass is, as an integer.
    #[inline(always)]
    fn share(self, mass: u64) -> u32 {
        self.share_of_float(mass as f64)
    }

    #[inline(always)]
    fn share_of_float(self, mass: f64) -> u32 {
        let share = (mass / self.total * GRID + ROUND64).to_bits() as u32; // rounded, with ties to even
        share.min(GRID as u32) // it is more only if the row changes
    }

    #[inline(always)]
    fn fall(self, share: u32) -> f64 {
        let d = (f64::from(share) / GRID - self.center).abs() / WIDTH;
        SHARPNESS * d * d / (1.0 + d) * std::f64::consts::LOG2_E
    }

    /// Returns the new mass of a token with a share.
    #[inline(always)]
    fn mass(self, share: u32) -> u64 {
        let less = (self.least - self.fall(share)).min(0.0); // it is more only if the row changes
        (exp2(less) * (1u64 << S) as f64).round_ties_even() as u64
    }
}

/// Replaces the masses, which together are `total`.
#[inline(always)]
pub fn reweigh(masses: &mut [u64], total: u64, center: f64) {
    let mut curve = Curve { total: total as f64, center, least: f64::INFINITY };
    for &mass in &*masses {
        curve.least = curve.least.min(curve.fall(curve.share(mass)));
    }
    let mut known = (u32::MAX, 0);
    for mass in masses {
        let share = curve.share(*mass);
        if share != known.0 {
            known = (share, curve.mass(share));
        }
        *mass = known.1;
    }
}

/// Shares below this have their new masses looked up.
const SMALL: usize = 2048;

/// If no more tokens of a block than this have a share, they are weighed one by one.
const FEW: u32 = 16;

/// The new masses of the tokens up to a key that are not banned, where these are too many for a list.
#[derive(Debug, Default)]
pub struct Blocks {
    /// The new mass of each block.
    sums: Vec<u64>,
    /// The new mass of each small share, or 0 while it has not been needed.
    known: Vec<u64>,
    curve: Curve,
}

impl Blocks {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.sums, blocks)?;
        reserve(&mut self.known, SMALL)
    }

    /// Weighs the tokens up to `last`, whose masses before are together `total`.
    #[inline(always)]
    pub fn weigh<R: Row>(&mut self, row: &R, mass: Mass, last: u64, total: f64, center: f64) {
        self.known.clear();
        self.known.resize(SMALL, 0);
        let mut curve = Curve { total, center, least: f64::INFINITY };
        // The fall grows with the distance from the center. A step of the grid changes it by more than one part in 2**25, and
        // its roundings by less than one in 2**50. So of the tokens on each side of the center, the nearest one falls least.
        let end = order::logit(last).max(f32::MIN);
        let center = mass.least_logit_where(|mass| f64::from(curve.share(mass)) / GRID >= center);
        let above = beside::smallest_from(row, center.unwrap_or(f32::INFINITY).max(end));
        let below = beside::largest_below(row, center.unwrap_or(f32::INFINITY));
        for logit in [above, below] {
            if end <= logit && logit < f32::INFINITY {
                curve.least = curve.least.min(curve.fall(curve.share(mass.of(logit))));
            }
        }
        self.curve = curve;
        let nonzero = mass.least_logit_where(|mass| curve.share(mass) > 0).unwrap_or(f32::INFINITY);
        R::Isa::run(move || {
            let (prefix, mut buffer) = (Prefix::not_banned(last), Buffer::new());
            let without_share = self.mass(0);
            self.sums.clear();
            self.sums.resize(row.maxima().len(), 0);
            for index in row.reaching(prefix.least()) {
                let block = row.block(index, &mut buffer);
                let mask = prefix.mask::<R::Isa>(block, index);
                let mut with_share = mask & R::Isa::at_least(block, nonzero);
                if with_share.count_ones() > FEW {
                    self.sums[index] = self.masses::<R::Isa>(mass, block, mask).iter().sum();
                    continue;
                }
                let mut sum = without_share * u64::from((mask & !with_share).count_ones());
                while with_share != 0 {
                    sum += self.mass(curve.share(mass.of(block[with_share.trailing_zeros() as usize % BLOCK])));
                    with_share &= with_share - 1;
                }
                self.sums[index] = sum;
            }
        });
    }

    /// Returns the new masses of a block, and 0 for the tokens whose bit is not set.
    #[inline(always)]
    fn masses<I: Vector>(&mut self, mass: Mass, block: &[f32; BLOCK], mask: u64) -> [u64; BLOCK] {
        let (mut shares, mut masses) = ([0; BLOCK], [0; BLOCK]);
        for (share, weight) in shares.iter_mut().zip(mass.weights::<I>(block)) {
            *share = self.curve.share_of_float((f64::from(weight) + ROUND64) - ROUND64);
        }
        for (place, (mass, &share)) in masses.iter_mut().zip(&shares).enumerate() {
            *mass = self.mass(share) * (mask >> place & 1);
        }
        masses
    }

    /// Returns the new mass of a token with a share.
    #[inline(always)]
    fn mass(&mut self, share: u32) -> u64 {
        let curve = self.curve;
        match self.known.get_mut(share as usize) {
            None => curve.mass(share),
            Some(known) => {
                if *known == 0 {
                    *known = curve.mass(share);
                }
                *known
            }
        }
    }

    /// Returns the token that the word draws from those that were weighed, or None if they have no mass.
    #[inline(always)]
    pub fn draw<R: Row>(&mut self, row: &R, mass: Mass, last: u64, word: u64) -> Option<Drawn> {
        let total = self.sums.iter().sum();
        let target = draw::target(word, total);
        let found = draw::find(self.sums.iter().copied(), target)?;
        let hit = R::Isa::run(|| {
            let mut buffer = Buffer::new();
            let block = row.block(found.place, &mut buffer);
            let mask = Prefix::not_banned(last).mask::<R::Isa>(block, found.place);
            draw::find(self.masses::<R::Isa>(mass, block, mask).into_iter(), found.into)
        })?;
        Some(Drawn::new(found.place * BLOCK + hit.place, total, target - hit.into, hit.mass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_a_mass_and_the_nearest_one_the_largest() {
        for center in [0.0, 1e-9, 0.1, 0.5, 0.9, 1.0] {
            for before in [vec![1 << S], vec![1 << S, 0, 0], vec![1 << S, 1 << S, 5, 1 << 30], vec![1 << 20; 1000]] {
                let (mut masses, total) = (before.clone(), before.iter().sum::<u64>());
                reweigh(&mut masses, total, center);
                let distance = |mass: &u64| (*mass as f64 / total as f64 - center).abs();
                let nearest = (0..before.len()).min_by(|&a, &b| distance(&before[a]).total_cmp(&distance(&before[b])));
                assert_eq!(masses[nearest.unwrap()], 1 << S, "{center} {before:?}");
                assert!(masses.iter().all(|&mass| mass > 0 && mass <= 1 << S), "{center} {before:?}");
            }
        }
    }
}
