//! The nucleus: the smallest set of most probable tokens whose mass reaches a share of the whole.
//!
//! ```text
//! order = np.lexsort((ids, -row))
//! need  = min(W, max(1, ceil(float64(p) * float64(W))))       # W the mass of what was kept before
//! kept  = order[: np.searchsorted(np.cumsum(mass[order]), need) + 1]
//! ```
//!
//! A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The curious case of neural text degeneration" (ICLR 2020).
//!
//! Edge rules: at least one token; the token that crosses the line is kept; among equal logits the lower ids are kept.
//!
//! How it is fast: nothing is sorted. One pass adds each mass to one of a few hundred buckets, by its highest four bits; the
//! running sum over the buckets finds the bucket in which the line is crossed; inside it, halving by selection finds the
//! token. The order of the buckets is the total order, because a mass never decreases with the logit.

use super::mass::S;

/// Buckets for one power of two.
const STEPS: usize = 8;
const BUCKETS: usize = (S as usize + 1) * STEPS + 1;

/// The mass that the nucleus must reach.
#[inline(always)]
pub fn need(top_p: f64, total: u64) -> u64 {
    ((top_p * total as f64).ceil() as u64).clamp(1, total)
}

/// Every pigeon has a hole: tokens lighter than this, `tokens` of them at most, weigh less together than what may be left out.
#[inline(always)]
pub fn least_mass(need: u64, total: u64, tokens: usize) -> u64 {
    ((total - need) / tokens as u64).max(1)
}

/// The key of the last token of the nucleus, from the keys and masses of tokens that include it.
#[inline(always)]
pub fn last_key(keys: &[u64], masses: &[u64], need: u64, work: &mut Vec<(u64, u64)>) -> u64 {
    let mut buckets = [0u64; BUCKETS];
    for &mass in masses {
        buckets[bucket(mass)] += mass;
    }
    let mut before = 0;
    let mut crossing = BUCKETS - 1;
    while before + buckets[crossing] < need && crossing > 0 {
        before += buckets[crossing];
        crossing -= 1;
    }
    work.clear();
    let pairs = keys.iter().copied().zip(masses.iter().copied());
    work.extend(pairs.filter(|&(_, mass)| bucket(mass) == crossing));
    crossing_key(work, need - before)
}

/// Powers of two, each in `STEPS` equal steps; 0 for a mass of 0.
#[inline(always)]
fn bucket(mass: u64) -> usize {
    const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - STEPS.ilog2();
    let bits = (mass as f64).to_bits() >> SHIFT;
    (bits as usize + 1).saturating_sub(1023 * STEPS)
}

/// The first key, in key order, at which the running mass reaches `need`.
fn crossing_key(mut tokens: &mut [(u64, u64)], mut need: u64) -> u64 {
    const FEW: usize = 16;
    while tokens.len() > FEW {
        let middle = tokens.len() / 2;
        tokens.select_nth_unstable(middle);
        let (first, second) = tokens.split_at_mut(middle);
        let mass: u64 = first.iter().map(|&(_, mass)| mass).sum();
        if mass >= need {
            tokens = first;
        } else {
            need -= mass;
            tokens = second;
        }
    }
    tokens.sort_unstable();
    let mut running = 0;
    let crossed = tokens.iter().find(|&&(_, mass)| {
        running += mass;
        running >= need
    });
    crossed.expect("the tokens' mass reaches what is needed").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_never_decrease_and_stay_in_range() {
        let mut last = 0;
        let samples = (0..4096).chain((12..S).flat_map(|n| (8..16).map(move |step| (step << n) / 8))).chain([1 << S]);
        for mass in samples {
            assert!(bucket(mass) >= last, "bucket of {mass}");
            last = bucket(mass);
        }
        assert_eq!(bucket(0), 0);
        assert!(bucket(1) > 0);
        assert_eq!(bucket(1 << S), BUCKETS - STEPS);
    }
}
