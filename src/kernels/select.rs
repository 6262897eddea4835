//! Finds a token by its place in the total order, without sorting: where the running measure of the tokens before it, itself
//! included, reaches what is needed.
//!
//! ```text
//! order = np.argsort(keys)
//! last  = keys[order][np.searchsorted(np.cumsum(measure[order]), need)]
//! ```
//!
//! The measure is 1 for the k-th largest, the mass for the last token of a nucleus.
//!
//! How it is fast: the range of the keys is cut into 256 equal parts, the measure of each part is summed, and only the part
//! in which the line is crossed is looked at again. Keys are distinct, so eight rounds end it; one or two usually do.

/// So few tokens are sorted.
const FEW: usize = 64;

/// Parts of a range, as a power of two.
const PARTS: u32 = 8;

/// The key of that token, and the running measure; None if all tokens together measure less than `need`. Tokens far from
/// it are removed from the list. `need` is not 0.
#[inline(always)]
pub fn select<T: Copy>(
    tokens: &mut Vec<T>,
    key: impl Fn(T) -> u64,
    measure: impl Fn(T) -> u64,
    need: u64,
) -> Option<(u64, u64)> {
    let mut before = 0;
    while tokens.len() > FEW {
        let (mut low, mut high) = (u64::MAX, 0);
        for &token in &*tokens {
            low = low.min(key(token));
            high = high.max(key(token));
        }
        let shift = (u64::BITS - (high - low).leading_zeros()).saturating_sub(PARTS);
        let part = |token| ((key(token) - low) >> shift) as u8;
        let mut sums = [0u64; 1 << PARTS];
        for &token in &*tokens {
            sums[usize::from(part(token))] += measure(token);
        }
        let mut crossing = 0;
        while before + sums[usize::from(crossing)] < need && crossing < u8::MAX {
            before += sums[usize::from(crossing)];
            crossing += 1;
        }
        tokens.retain(|&token| part(token) == crossing);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_that_of_a_sorted_list() {
        for count in [1u64, 2, 63, 64, 65, 300, 5000] {
            // Close together, far apart, and both.
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
                    assert_eq!(select(&mut tokens, |token| token.0, |token| token.1, need), wanted);
                }
            }
        }
    }
}
