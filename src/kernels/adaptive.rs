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
//! How it is fast: most tokens of a row have a share of 0, so that one in a list seldom differs from the one before.

use super::mass::S;
use super::series::exp2;

const GRID: f64 = (1 << 24) as f64;
const WIDTH: f64 = 0.3;
const SHARPNESS: f64 = 10.0;

/// Replaces the masses, which together are `total`.
#[inline(always)]
pub fn reweigh(masses: &mut [u64], total: u64, center: f64) {
    let share = |mass: u64| (mass as f64 / total as f64 * GRID).round_ties_even();
    let fall = |share: f64| {
        let d = (share / GRID - center).abs() / WIDTH;
        SHARPNESS * d * d / (1.0 + d) * std::f64::consts::LOG2_E
    };
    let mut least = f64::INFINITY;
    for &mut mass in &mut *masses {
        least = least.min(fall(share(mass)));
    }
    let mut known = (-1.0, 0);
    for mass in masses {
        let share = share(*mass);
        if share != known.0 {
            known = (share, (exp2(least - fall(share)) * (1u64 << S) as f64).round_ties_even() as u64);
        }
        *mass = known.1;
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
