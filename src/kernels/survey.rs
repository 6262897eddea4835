//! Samples the tokens of a row, to estimate where a prefix of the total order ends.
//!
//! ```text
//! sample    = np.sort(keys[ids])                # keys as in order.rs, about V**(2/3) / 2 ids spread over the row
//! near, far = two keys of the sample            # almost certainly near < last <= far, where last is the end of the prefix
//! ```
//!
//! Edge rule: the sample decides only how long a call takes, and never the answer. If the last token does not lie between the
//! two keys, the keys were too close together, and the next two are farther apart.
//!
//! How it is fast: a prefix with thousands of tokens is found the way R. W. Floyd and R. L. Rivest find an order statistic
//! ("Expected time bounds for selection", Communications of the ACM 18, 1975). A sorted sample gives two keys, and the last
//! token almost certainly lies between them. One pass over the row (`prefix.rs`) measures what comes before the two keys and
//! lists what lies between them.
//!
//! The places of the sample are multiples of the golden ratio, modulo 1. They are evenly spread, and do not fall into step
//! with any period of the row.

use super::mass::Mass;
use super::order;
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::BLOCK;
use crate::row::Row;

/// 2**64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A row with fewer tokens than this is not sampled.
const FEW: usize = 1 << 12;

// How far from the guess to look, in standard deviations. It is less for a count, because a count is quickly done again. If
// that was too close, the distance grows by the factor WIDER; beyond HOPELESS, the whole row is searched.
const DOUBT_OF_COUNT: f64 = 1.5;
const DOUBT_OF_MASS: f64 = 2.5;
const DOUBT_OF_DISTANCE: f64 = 2.0;
const WIDER: f64 = 3.0;
const HOPELESS: f64 = 100.0;

/// Sampled tokens, in the total order.
#[derive(Debug, Default)]
pub struct Survey {
    keys: Vec<u64>,
    /// The measure of each of them: 1 to count tokens, or the mass.
    measures: Vec<f64>,
    /// How many tokens of the row each token of the sample stands for.
    scale: f64,
    left_out: f64,
    deviation: f64,
    doubt: f64,
}

/// The most tokens that are not sampled but known, where some are.
pub const MOST_KNOWN: usize = 4096;

/// The first tokens of the total order, which are known and need no sample.
pub struct Known<'a> {
    pub keys: &'a [u64],
    /// A key that comes after all of them and before the others.
    pub last: u64,
    /// Their mass together.
    pub mass: u64,
}

/// Returns how many tokens of a row to sample. The number balances the time for the sample and for the tokens between the two
/// keys.
#[inline(always)]
fn count(tokens: usize) -> usize {
    if tokens < FEW { 0 } else { ((tokens as f64).powf(2.0 / 3.0) / 2.0) as usize }
}

impl Survey {
    /// Reserves memory for a row with this many tokens.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        reserve(&mut self.keys, count(tokens) + MOST_KNOWN)?;
        reserve(&mut self.measures, count(tokens) + MOST_KNOWN)
    }

    /// Samples a row.
    #[inline(always)]
    pub fn take<R: Row>(&mut self, row: &R) {
        R::Isa::run(move || {
            let tokens = row.tokens();
            let count = count(tokens);
            self.scale = tokens as f64 / count.max(1) as f64;
            self.keys.resize(count, 0);
            for (i, key) in self.keys.iter_mut().enumerate() {
                let place = (i as u64 + 1).wrapping_mul(GOLDEN);
                let id = ((u128::from(place) * tokens as u128) >> 64) as usize;
                *key = order::key(row.logit(id), id);
            }
            self.keys.sort_unstable();
        })
    }

    /// Prepares to look for the end of a prefix by the number of tokens that it leaves out.
    #[inline(always)]
    pub fn seek_count(&mut self, left_out: usize) {
        self.measures.clear();
        self.measures.resize(self.keys.len(), 1.0);
        (self.left_out, self.deviation, self.doubt) = (left_out as f64, 0.0, DOUBT_OF_COUNT);
    }

    /// Measures tokens by their mass, in the prefix up to `last` only, and returns an estimate of the mass of all tokens after
    /// it.
    #[inline(always)]
    pub fn weigh<I: Vector>(&mut self, mass: Mass, last: u64) -> f64 {
        self.measures.resize(self.keys.len(), 0.0);
        let measured = self.measures.iter_mut().zip(&self.keys);
        I::run(move || {
            for (measure, &key) in measured {
                *measure = f64::from(mass.weight(order::logit(key)));
            }
        });
        let kept = self.keys.partition_point(|&key| key <= last);
        let after: f64 = self.measures[kept..].iter().sum();
        self.keys.truncate(kept);
        self.measures.truncate(kept);
        after * self.scale
    }

    /// Puts the sampled tokens up to `last` in the order of a distance, and measures them by their mass, of which there is `total`
    /// in the row. In place of sampled tokens that are known, it takes all known tokens: so a heavy token is neither missed nor
    /// counted many times. Afterwards a key is a distance and an id.
    #[inline(always)]
    pub fn turn<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        known: Known<'_>,
        last: u64,
        distance: impl Fn(u64) -> u32,
        total: u64,
    ) {
        R::Isa::run(move || {
            let turned = |key: u64| u64::from(distance(key)) << 32 | order::id(key) as u64;
            let (mut count, mut sampled) = (0, 0.0);
            for place in 0..self.keys.len() {
                let key = self.keys[place];
                self.keys[count] = turned(key);
                if known.last < key && key <= last {
                    sampled += f64::from(mass.weight(order::logit(key)));
                    count += 1;
                }
            }
            self.keys.truncate(count);
            self.keys.extend_from_slice(known.keys);
            for key in &mut self.keys[count..] {
                *key = turned(*key);
            }
            self.keys.sort_unstable();
            // What the sample stands for is known, and with it how much each sampled token should count.
            let rest = total.saturating_sub(known.mass) as f64 / self.scale;
            let correction = if sampled > 0.0 { rest / sampled } else { 1.0 };
            self.measures.resize(self.keys.len(), 0.0);
            for (measure, &key) in self.measures.iter_mut().zip(&self.keys) {
                let (id, logit) = (order::id(key), row.logit(order::id(key)));
                let is_known = order::key(logit, id) <= known.last;
                *measure = f64::from(mass.weight(logit)) * if is_known { self.scale.recip() } else { correction };
            }
        })
    }

    /// Returns an estimate of the mass of the tokens up to `last`, and its standard deviation.
    ///
    /// The masses of the block maxima are known, and only the rest is estimated. So a single heavy token is not missed,
    /// although it is probably not in the sample.
    #[inline(always)]
    pub fn total<R: Row>(&self, row: &R, mass: Mass, last: u64) -> (f64, f64) {
        R::Isa::run(move || {
            let floor = order::logit(last);
            let kept = |maximum: f32| if maximum >= floor { f64::from(mass.weight(maximum)) } else { 0.0 };
            let mut heaviest = 0.0;
            for &maximum in row.maxima() {
                heaviest += kept(maximum);
            }
            let (mut sum, mut squares) = (0.0, 0.0);
            for (&key, m) in self.keys.iter().zip(&self.measures) {
                let rest = m - kept(row.maxima()[order::id(key) / BLOCK]) / BLOCK as f64;
                sum += rest;
                squares += rest * rest;
            }
            let variance = squares - sum * sum / self.keys.len().max(1) as f64;
            (heaviest + sum.max(0.0) * self.scale, variance.max(0.0).sqrt() * self.scale)
        })
    }

    /// Prepares to look for the end of a prefix by the mass that it leaves out, which is known to within a standard deviation.
    #[inline(always)]
    pub fn seek_mass(&mut self, left_out: f64, deviation: f64) {
        (self.left_out, self.deviation, self.doubt) = (left_out, deviation, DOUBT_OF_MASS);
    }

    /// Prepares to look for a distance by the mass that is farther away.
    #[inline(always)]
    pub fn seek_distance(&mut self, left_out: u64) {
        (self.left_out, self.deviation, self.doubt) = (left_out as f64, 0.0, DOUBT_OF_DISTANCE);
    }

    /// Returns two keys, up to `last`, such that the prefix probably ends after the first one and not after the second. Each
    /// call returns keys that are farther apart, and in the end every token lies between them.
    #[inline(never)]
    pub fn between(&mut self, last: u64) -> (u64, u64) {
        let (mut near, mut far) = (order::START, last);
        if self.doubt > HOPELESS {
            return (near, far);
        }
        let goal = self.left_out / self.scale;
        let all: f64 = self.measures.iter().map(|m| m * m).sum();
        let deviation = self.deviation / self.scale;
        let (mut left, mut squares) = (0.0, 0.0);
        for (&key, m) in self.keys.iter().zip(&self.measures).rev() {
            left += m;
            squares += m * m;
            let variance = squares.min(all - squares + m * m) + deviation * deviation;
            let distance = self.doubt * variance.sqrt();
            if left + distance <= goal {
                far = key;
            } else if left - distance > goal {
                near = key;
                break;
            }
        }
        self.doubt *= WIDER;
        (near, far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;
    use crate::row::Plain;

    #[test]
    fn the_last_token_lies_between_the_keys_or_they_become_everything() {
        let rows: [Box<dyn Fn(usize) -> f32>; 3] =
            [Box::new(|_| 1.0), Box::new(|id| (id % 977) as f32), Box::new(|id| id as f32)];
        for row in rows {
            let row: Vec<f32> = (0..100_000).map(row).collect();
            let mut keys: Vec<u64> = row.iter().enumerate().map(|(id, &x)| order::key(x, id)).collect();
            keys.sort_unstable();
            let mut survey = Survey::default();
            survey.take(&Plain::<Portable, f32>::read(&row, &mut Vec::new()).unwrap());
            for k in [1, 2, 1000, 50_000, 99_999] {
                survey.seek_count(row.len() - k);
                let wanted = keys[k - 1];
                let (near, far) = survey.between(order::end(row.len()));
                assert!(near < wanted && wanted <= far, "{k}: {near:x} {wanted:x} {far:x}");
                let between = keys.iter().filter(|&&key| near < key && key <= far).count();
                assert!(between < 12_000, "{k}: {between}");
                let widest = (0..6).map(|_| survey.between(order::end(row.len()))).last();
                assert_eq!(widest, Some((order::START, order::end(row.len()))));
            }
        }
    }
}
