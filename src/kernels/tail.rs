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
//! heaviest tokens is enough if the answer is the same for the smallest and for the largest sum.

/// Returns how many tokens come before the tail, given the keys and masses of the first tokens in the total order, or None if
/// that depends on the tokens which are not given. `is_all` says that there are no others.
pub fn start(tokens: &[(u64, u64)], z: f64, is_all: bool) -> Option<usize> {
    let bends = || {
        tokens.windows(3).map(|three| {
            let [a, b, c] = [three[0].1, three[1].1, three[2].1];
            a.saturating_sub(b).abs_diff(b.saturating_sub(c))
        })
    };
    let sum = |bends: &mut dyn Iterator<Item = u64>| bends.fold(0, u64::wrapping_add);
    let least = sum(&mut bends());
    let most = match (is_all, tokens) {
        (true, _) => least,
        (false, [.., a, b]) => least.wrapping_add(a.1).wrapping_add(b.1),
        (false, _) => return None,
    };
    let [low, high] = [least, most].map(|sum| (z * sum as f64) as u64); // rounds down
    let mut running = 0u64;
    for (place, bend) in bends().enumerate() {
        running = running.wrapping_add(bend);
        if place >= 1 && running > low {
            return (running > high).then_some(place);
        }
    }
    is_all.then_some(tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(masses: &[u64]) -> Vec<(u64, u64)> {
        masses.iter().enumerate().map(|(key, &mass)| (key as u64, mass)).collect()
    }

    #[test]
    fn the_tail_starts_where_the_share_of_the_bends_is_exceeded() {
        let all = tokens(&[100, 60, 40, 30, 28, 27, 27]); // bends 20, 10, 8, 1, 1
        let counts = [0.0, 0.74, 0.75, 0.94, 0.95, 0.974, 0.976].map(|z| start(&all, z, true).unwrap());
        assert_eq!(counts, [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(start(&all[..3], 0.0, true), Some(3));
        assert_eq!(start(&tokens(&[5; 9]), 0.0, true), Some(9));
    }

    #[test]
    fn the_first_tokens_decide_only_what_all_of_them_decide() {
        let mut decided = 0;
        for seed in 0..200u64 {
            let mut mass = 1 << 41;
            let masses: Vec<u64> = (0..40)
                .map(|step| {
                    mass = mass / 64 * (40 + (seed * 7 + step * step * 31) % 25);
                    mass
                })
                .collect();
            let all = tokens(&masses);
            for z in [0.0, 0.3, 0.9, 0.95, 0.999] {
                let want = start(&all, z, true);
                for count in 0..=all.len() {
                    let found = start(&all[..count], z, false);
                    assert!(found.is_none() || found == want, "{seed} {z} {count}");
                    decided += usize::from(found.is_some());
                }
            }
        }
        assert!(decided > 1000);
    }
}
