//! The total order of a row's tokens: logit descending, then token id ascending.
//!
//! ```text
//! np.lexsort((ids, -row))
//! ```
//!
//! A token's place in it is one `u64`, its key, so that comparing, selecting and sorting are integer operations: the logit's
//! bits, mapped to be descending, over the id. -0.0 and 0.0 are the same logit.

/// The key of token `id` with logit `x`; a smaller key comes earlier. `x` is not NaN.
#[inline(always)]
pub fn key(x: f32, id: usize) -> u64 {
    let bits = (x + 0.0).to_bits(); // -0.0 becomes 0.0
    let sign = ((bits as i32) >> 31) as u32; // all ones for a negative number
    let descending = !(bits ^ (sign | 0x8000_0000));
    u64::from(descending) << 32 | id as u64
}

/// The token id of a key.
#[inline(always)]
pub fn id(key: u64) -> usize {
    (key as u32) as usize
}

/// The logit of a key.
#[inline(always)]
pub fn logit(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    let sign = ((!ascending as i32) >> 31) as u32;
    f32::from_bits(ascending ^ (sign | 0x8000_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_logit_descending_then_id_ascending() {
        let logits = [f32::MAX, 2.0, 1.0, 1e-40, 0.0, -1e-40, -1.0, f32::MIN, f32::NEG_INFINITY];
        for (a, &x) in logits.iter().enumerate() {
            assert_eq!(logit(key(x, 7)), x);
            assert_eq!(id(key(x, 7)), 7);
            assert!(key(x, 7) < key(x, 8));
            for &y in &logits[a + 1..] {
                assert!(key(x, 1_000_000) < key(y, 0), "{x} comes before {y}");
            }
        }
        assert_eq!(key(-0.0, 3), key(0.0, 3));
    }
}
