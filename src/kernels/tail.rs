//! Finds where the tail of a distribution begins: where the sorted masses have stopped to bend.
//!
//! ```text
//! m     = mass[order]                           # descending
//! bend  = abs(np.diff(np.diff(m.astype(np.int64))))           # how much the curve of the masses bends at each token
//! limit = floor(float64(z) * float64(bend.sum()))
//! kept  = order[: first i >= 1 with bend[: i + 1].sum() > limit, or all if there is none]
//! ```
//!
//! How it is fast: with the tokens after the n-th, no more than m[n - 2] + m[n - 1] is added to the sum of the bends, because
//! each is at most the sum of two steps down, and the steps down from a token add up to its mass at most. So a list of the
//! heaviest tokens is enough if the answer is the same for the smallest and for the largest sum. The logits of this list are
//! sorted without the ids, because a mass depends on nothing else.

/// Returns how many tokens come before the tail, given the masses of the first tokens in the total order. `is_all` says that
/// there are no others.
///
/// Returns an error if the answer depends on tokens that are not given: the mass down to which tokens should be given, as a
/// guess.
#[inline(always)]
pub fn start(masses: &[u64], z: f64, is_all: bool) -> Result<usize, u64> {
    let bends = || {
        masses.windows(3).map(|three| {
            let [a, b, c] = [three[0], three[1], three[2]];
            a.saturating_sub(b).abs_diff(b.saturating_sub(c))
        })
    };
    let least = bends().fold(0, u64::wrapping_add);
    let open = match (is_all, masses) {
        (true, _) => 0,
        (false, [.., a, b]) => a.wrapping_add(*b),
        (false, _) => return Err(u64::MAX), // any more tokens will do
    };
    let limit = |sum: u64| (z * sum as f64) as u64; // rounds down
    let (low, high) = (limit(least), limit(least.wrapping_add(open)));
    // The others probably bend half as much as they can. The answer is then certain if the nearest sums of bends are farther
    // from that limit than the uncertainty.
    let (middle, mut gap) = (limit(least.wrapping_add(open / 2)), u64::MAX);
    let mut running = 0u64;
    for (place, bend) in bends().enumerate() {
        running = running.wrapping_add(bend);
        if place >= 1 && running > low {
            if running > high && gap == u64::MAX {
                return Ok(place);
            }
            gap = gap.min(running.abs_diff(middle));
            if running > middle {
                break;
            }
        }
    }
    if is_all { Ok(masses.len()) } else { Err(gap / 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_starts_where_the_share_of_the_bends_is_exceeded() {
        let all = [100, 60, 40, 30, 28, 27, 27]; // bends 20, 10, 8, 1, 1
        let counts = [0.0, 0.74, 0.75, 0.94, 0.95, 0.974, 0.976].map(|z| start(&all, z, true).unwrap());
        assert_eq!(counts, [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(start(&all[..3], 0.0, true), Ok(3));
        assert_eq!(start(&[5; 9], 0.0, true), Ok(9));
    }

    #[test]
    fn the_first_tokens_decide_only_what_all_of_them_decide() {
        let mut decided = 0;
        for seed in 0..200u64 {
            let mut mass = 1 << 41;
            let all: Vec<u64> = (0..40)
                .map(|step| {
                    mass = mass / 64 * (40 + (seed * 7 + step * step * 31) % 25);
                    mass
                })
                .collect();
            for z in [0.0, 0.3, 0.9, 0.95, 0.999] {
                let want = start(&all, z, true);
                for count in 0..=all.len() {
                    let found = start(&all[..count], z, false);
                    assert!(found.is_err() || found == want, "{seed} {z} {count}");
                    decided += usize::from(found.is_ok());
                }
            }
        }
        assert!(decided > 1000);
    }
}
