//! Philox4x64-10, a counter-based random generator.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same
//! generator is `numpy.random.Philox`, which the tests use as the oracle.
//!
//! It has no state: a text's random words are a function of its seed, its stream (the row of a batch) and the position of
//! the token, so a draw does not depend on what was drawn before it or beside it.

const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];
const ROUNDS: usize = 10;

/// The four words of the block at `counter` under `key`.
#[inline]
pub fn philox4x64(key: [u64; 2], counter: [u64; 4]) -> [u64; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..ROUNDS {
        let product0 = u128::from(MULTIPLIERS[0]) * u128::from(c0);
        let product1 = u128::from(MULTIPLIERS[1]) * u128::from(c2);
        c0 = (product1 >> 64) as u64 ^ c1 ^ k0;
        c2 = (product0 >> 64) as u64 ^ c3 ^ k1;
        c1 = product1 as u64;
        c3 = product0 as u64;
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The random words of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    /// The word that draws the token from those that are kept.
    pub draw: u64,
    /// The word of the filter that is random itself.
    pub filter: u64,
    /// The word that decides whether a token of a draft is accepted.
    pub accept: u64,
    /// The word that draws what comes instead of a token of a draft, or after the draft.
    pub replace: u64,
}

/// The place of a token in all texts: what its random words are a function of.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The run.
    pub seed: u64,
    /// The text within the run.
    pub stream: u64,
    /// The place of the token in its text.
    pub position: u64,
}

/// Returns the random words of a token: `philox4x64(key=(seed, 0), counter=(position, stream, 0, 0))`.
#[inline]
pub fn words(seed: u64, stream: u64, position: u64) -> Words {
    let [draw, filter, accept, replace] = philox4x64([seed, 0], [position, stream, 0, 0]);
    Words { draw, filter, accept, replace }
}

/// Several draws from one row. The first has the stream `stream`, the second the next one, and so on.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// The seed of all of them.
    pub seed: u64,
    /// The stream of the first draw. After the last stream comes stream 0.
    pub stream: u64,
    /// The position of all of them.
    pub position: u64,
    /// True if a token can be drawn again.
    pub replacement: bool,
}

impl Draws {
    /// Returns the random words of a draw.
    pub fn words(self, draw: usize) -> Words {
        words(self.seed, self.stream.wrapping_add(draw as u64), self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from the authors' test vectors (Random123, `kat_vectors`, philox4x64 10).
    #[test]
    fn known_answers() {
        let ones = u64::MAX;
        assert_eq!(
            philox4x64([0, 0], [0, 0, 0, 0]),
            [0x16554d9eca36314c, 0xdb20fe9d672d0fdc, 0xd7e772cee186176b, 0x7e68b68aec7ba23b]
        );
        assert_eq!(
            philox4x64([ones, ones], [ones, ones, ones, ones]),
            [0x87b092c3013fe90b, 0x438c3c67be8d0224, 0x9cc7d7c69cd777b6, 0xa09caebf594f0ba0]
        );
    }
}
