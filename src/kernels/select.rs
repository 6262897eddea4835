//! Finds, without sorting, the token in the total order at which a running measure reaches what is needed. The running measure
//! includes the token itself.
//!
//! ```text
//! order = np.argsort(keys)
//! last  = keys[order][np.searchsorted(np.cumsum(measure[order]), need)]
//! ```
//!
//! To find the k-th largest token, the measure of each token is 1. To find the last token of a nucleus, it is the mass.
//!
//! Edge rule: there is no answer if all tokens together measure less than what is needed.
//!
//! How it is fast: the range of the keys is cut into 256 equal parts, and the measure in each part is summed. Only the part in
//! which the goal is reached is looked at again. Keys are distinct, so it takes eight rounds at most, and usually one or two.

/// At most this many tokens are sorted instead.
const FEW: usize = 64;

/// The number of parts of a range, as a power of two.
const PARTS: u32 = 8;

/// Returns the key of that token and the running measure, or None if all tokens together measure less than `need`. Tokens far
/// from that token are removed from the list. `need` must not be 0.
#[inline(always)]
pub fn select<T: Copy>(
    tokens: &mut Vec<T>,
    key: impl Fn(T) -> u64,
    measure: impl Fn(T) -> u64,
    need: u64,
) -> Option<(u64, u64)> {
    let mut before = 0;
    while tokens.len() > FEW {
        let parts = Parts::of(tokens.iter().map(|&token| key(token)));
        let mut sums = [0u64; 1 << PARTS];
        for &token in &*tokens {
            sums[parts.part(key(token))] += measure(token);
        }
        let (crossing, skipped) = crossing(&sums, need - before);
        before += skipped;
        tokens.retain(|&token| parts.part(key(token)) == crossing);
    }
    tokens.sort_unstable_by_key(|&token| key(token));
    for &token in &*tokens {
        before += measure(token);
        if before >= need {
            return Some((key(token), before));
        }
    }
    None
}

/// The same for keys and measures in lists of their own, which stay as they are. `work` is scratch.
#[inline(always)]
pub fn select_from(keys: &[u64], measures: &[u64], need: u64, work: &mut Vec<(u64, u64)>) -> Option<(u64, u64)> {
    work.clear();
    let mut before = 0;
    if keys.len() <= FEW {
        work.extend(keys.iter().copied().zip(measures.iter().copied()));
    } else {
        // The first round, which leaves few tokens to be copied. There are two tables, because an addition to a sum must wait for
        // the addition before it.
        let parts = Parts::of(keys.iter().copied());
        let (mut sums, mut others) = ([0u64; 1 << PARTS], [0u64; 1 << PARTS]);
        for (keys, measures) in keys.chunks(2).zip(measures.chunks(2)) {
            for ((&key, &measure), sums) in keys.iter().zip(measures).zip([&mut sums, &mut others]) {
                sums[parts.part(key)] += measure;
            }
        }
        for (sum, other) in sums.iter_mut().zip(&others) {
            *sum += other;
        }
        let (crossing, skipped) = crossing(&sums, need);
        before = skipped;
        for (&key, &measure) in keys.iter().zip(measures) {
            if parts.part(key) == crossing {
                work.push((key, measure));
            }
        }
    }
    let (last, measure) = select(work, |token| token.0, |token| token.1, need - before)?;
    Some((last, before + measure))
}

/// The range of some keys, cut into equal parts.
struct Parts {
    low: u64,
    shift: u32,
}

impl Parts {
    #[inline(always)]
    fn of(keys: impl Iterator<Item = u64>) -> Parts {
        let (mut low, mut high) = (u64::MAX, 0);
        for key in keys {
            low = low.min(key);
            high = high.max(key);
        }
        Parts { low, shift: (u64::BITS - (high - low).leading_zeros()).saturating_sub(PARTS) }
    }

    /// Returns the part of the range in which a key is.
    #[inline(always)]
    fn part(&self, key: u64) -> usize {
        usize::from(((key - self.low) >> self.shift) as u8)
    }
}

/// Returns the part in which the goal is reached, or the last one, and the measure of those before it.
#[inline(always)]
fn crossing(sums: &[u64; 1 << PARTS], need: u64) -> (usize, u64) {
    let (mut crossing, mut before) = (0, 0);
    while before + sums[crossing] < need && crossing < sums.len() - 1 {
        before += sums[crossing];
        crossing += 1;
    }
    (crossing, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_that_of_a_sorted_list() {
        for count in [1u64, 2, 63, 64, 65, 300, 5000] {
            // Keys that are close together, far apart, and both.
            for spread in [1, 1 << 40, u64::MAX / count] {
                let clustered = |i: u64| i * if i.is_multiple_of(3) { 1 } else { spread };
                let tokens: Vec<(u64, u64)> = (0..count).map(|i| (clustered(i), (i * i + 1) % 7)).collect();
                let mut sorted = tokens.clone();
                sorted.sort_unstable();
                let total: u64 = tokens.iter().map(|token| token.1).sum();
                for need in [1, 2, total / 2, total - 1, total].into_iter().filter(|&need| 0 < need && need <= total) {
                    let mut running = 0;
                    let wanted = sorted.iter().find_map(|&(key, mass)| {
                        running += mass;
                        (running >= need).then_some((key, running))
                    });
                    let mut tokens = tokens.clone();
                    tokens.reverse();
                    let (keys, measures): (Vec<u64>, Vec<u64>) = tokens.iter().copied().unzip();
                    assert_eq!(select(&mut tokens, |token| token.0, |token| token.1, need), wanted);
                    assert_eq!(select_from(&keys, &measures, need, &mut tokens), wanted);
                }
            }
        }
    }
}
