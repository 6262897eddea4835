//! The total order of the tokens of a row: the larger logit first, and among equal logits the smaller id first.
//!
//! ```text
//! np.lexsort((ids, -row))
//! ```
//!
//! The place of a token in this order is one `u64`, its key. The upper half holds the bits of the logit, mapped so that larger
//! logits come first, and the lower half holds the id. Every filter keeps a prefix of this order.
//!
//! Edge rule: -0.0 and 0.0 are the same logit.
//!
//! How it is fast: comparing, selecting and sorting tokens are operations on integers.

use crate::isa::Vector;
use crate::lanes::BLOCK;

/// A value that comes before every key.
pub const START: u64 = 0;

/// Returns the last key that a row of `tokens` tokens can have, which is that of its last token if it is banned.
#[inline(always)]
pub fn end(tokens: usize) -> u64 {
    key(f32::NEG_INFINITY, tokens - 1)
}

/// Returns the key of token `id` with logit `x`. A smaller key comes earlier. `x` must not be NaN.
#[inline(always)]
pub fn key(x: f32, id: usize) -> u64 {
    u64::from(!ascending(x)) << 32 | id as u64
}

/// Returns a key that comes after all tokens with a logit of at least `floor`, however many tokens share that logit.
#[inline(always)]
pub fn down_to(floor: f32) -> u64 {
    key(floor, u32::MAX as usize)
}

/// Returns the token id in a key.
#[inline(always)]
pub fn id(key: u64) -> usize {
    (key as u32) as usize
}

/// Returns the logit in a key.
#[inline(always)]
pub fn logit(key: u64) -> f32 {
    from_ascending(!((key >> 32) as u32))
}

/// Returns the place of a logit among all float32 in ascending order. `x` must not be NaN.
#[inline(always)]
pub fn ascending(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits(); // -0.0 becomes 0.0
    let sign = ((bits as i32) >> 31) as u32; // all ones for a negative number
    bits ^ (sign | 0x8000_0000)
}

/// Returns the logit at a place among all float32 in ascending order.
#[inline(always)]
pub fn from_ascending(place: u32) -> f32 {
    let sign = ((!place as i32) >> 31) as u32;
    f32::from_bits(place ^ (sign | 0x8000_0000))
}

/// Returns the place of the logit in a key in descending order, which is the upper half of the key.
#[inline(always)]
pub fn place(key: u64) -> u32 {
    (key >> 32) as u32
}

/// Returns the logit at a place in descending order.
#[inline(always)]
pub fn from_place(place: u32) -> f32 {
    from_ascending(!place)
}

/// Sorts keys, which must be in the order of their ids. `work` is scratch. As the ids are in order already, a stable sort by the
/// logits is enough.
#[inline(never)]
pub fn sort(keys: &mut Vec<u64>, work: &mut Vec<u64>) {
    sort_by_place(keys, work, place);
}

/// Fills `places` with the places of the logits in the keys, and sorts them. `work` is scratch.
#[inline(never)]
pub fn sort_places(keys: &[u64], places: &mut Vec<u32>, work: &mut Vec<u32>) {
    places.clear();
    places.extend(keys.iter().copied().map(place));
    sort_by_place(places, work, |place| place);
}

/// Sorts items by the places of their logits, three times by eleven bits, the lowest first. This is stable.
#[inline(always)]
fn sort_by_place<T: Copy + Default + Ord>(items: &mut Vec<T>, work: &mut Vec<T>, place: impl Fn(T) -> u32) {
    /// At most this many items are compared instead.
    const FEW: usize = 2048;
    const BITS: u32 = 11;
    const SHIFTS: [u32; 3] = [0, BITS, 2 * BITS];
    if items.len() <= FEW {
        items.sort_unstable();
        return;
    }
    work.resize(items.len(), T::default());
    let digit = |item: T, shift: u32| (place(item) >> shift) as usize % (1 << BITS);
    let mut counts = [[0u32; 1 << BITS]; SHIFTS.len()];
    for &item in &*items {
        for (counts, shift) in counts.iter_mut().zip(SHIFTS) {
            counts[digit(item, shift)] += 1;
        }
    }
    for (places, shift) in counts.iter_mut().zip(SHIFTS) {
        let mut before = 0;
        for place in &mut *places {
            before += std::mem::replace(place, before);
        }
        for &item in &*items {
            let place = &mut places[digit(item, shift)];
            work[*place as usize] = item;
            *place += 1;
        }
        std::mem::swap(items, work);
    }
}

/// A prefix of the total order (the tokens up to a key), in the form in which a block can be compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    logit: f32,
    above: f32,
    block: usize,
    within: u64,
}

impl Prefix {
    /// Makes the prefix of the tokens up to and including `last`.
    #[inline(always)]
    pub fn to(last: u64) -> Prefix {
        if last == START {
            return Prefix { logit: f32::INFINITY, above: f32::INFINITY, block: 0, within: 0 };
        }
        let (logit, id) = (logit(last), id(last));
        Prefix { logit, above: logit.next_up(), block: id / BLOCK, within: u64::MAX >> (BLOCK - 1 - id % BLOCK) }
    }

    /// Makes the prefix of the tokens up to `last` that are not banned.
    #[inline(always)]
    pub fn not_banned(last: u64) -> Prefix {
        Prefix::to(last.min(down_to(f32::MIN)))
    }

    /// Returns a logit that every token of the prefix reaches.
    #[inline(always)]
    pub fn least(self) -> f32 {
        self.logit
    }

    /// Returns a logit that every token of the prefix in this block reaches. Outside the last token's block this test is
    /// exact: no other token reaches it.
    #[inline(always)]
    pub fn floor(self, index: usize) -> f32 {
        if index <= self.block { self.logit } else { self.above }
    }

    /// Returns the weights of a block, with 0 for each token that is not in the prefix.
    #[inline(always)]
    pub fn keep<I: Vector>(self, weights: &[f32; BLOCK], block: &[f32; BLOCK], index: usize) -> [f32; BLOCK] {
        let floor = self.floor(index);
        let mut kept = [0f32; BLOCK];
        for ((kept, &weight), &x) in kept.iter_mut().zip(weights).zip(block) {
            *kept = if x >= floor { weight } else { 0.0 };
        }
        if index == self.block {
            let mask = self.mask::<I>(block, index);
            for (place, kept) in kept.iter_mut().enumerate() {
                *kept = if mask >> place & 1 == 1 { *kept } else { 0.0 };
            }
        }
        kept
    }

    /// Returns a mask in which bit i is set if token i of the block is in the prefix.
    #[inline(always)]
    pub fn mask<I: Vector>(self, block: &[f32; BLOCK], index: usize) -> u64 {
        let mask = I::at_least(block, self.floor(index));
        if index == self.block { mask & (self.within | I::at_least(block, self.above)) } else { mask }
    }
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

    #[test]
    fn keys_in_the_order_of_the_ids_are_sorted() {
        for count in [0, 1, 2048, 2049, 30_000] {
            let mut keys: Vec<u64> = (0..count).map(|id| key((id * 7919 % 1009) as f32 - 500.0, id)).collect();
            let mut wanted = keys.clone();
            wanted.sort();
            let mut places = Vec::new();
            sort_places(&keys, &mut places, &mut Vec::new());
            sort(&mut keys, &mut Vec::new());
            assert_eq!(keys, wanted);
            assert!(places.into_iter().eq(wanted.into_iter().map(place)));
        }
    }
}
