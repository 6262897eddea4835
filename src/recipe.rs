//! Each operation on a whole row, from the logits to the answer, compiled for every instruction set.
//!
//! Every filter keeps a prefix of the total order (`kernels/order.rs`). So one key, that of the last token, always describes
//! the tokens that survive. A draw has these steps:
//!
//! 1. `argmax` finds the maxima of the blocks and of the row.
//! 2. The filters `top_k`, `top_p` and min-p work on a list of the tokens that can survive, in the order of the ids
//!    (`candidates`). Where that list would be long, they make passes over the row instead (`prefix`).
//! 3. The draw goes through the tokens in the order of the ids.

use crate::error::RowError;
use crate::isa::{Vector, per_isa};
use crate::kernels::ledger::Ledger;
use crate::kernels::mass::{Mass, S};
use crate::kernels::order::{self, Prefix};
use crate::kernels::prefix::{self, Blocks};
use crate::kernels::survey::Survey;
use crate::kernels::{BLOCK, argmax, candidates, draw, reserve, softmax, top_k, top_p};
use crate::logit::Logit;
use crate::params::Params;

/// Memory that the recipes reuse from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The maximum of each block.
    maxima: Vec<f32>,
    /// The bounds of the mass of each block.
    ledger: Ledger,
    /// The keys of the listed tokens, in the order of the ids, and their masses.
    keys: Vec<u64>,
    masses: Vec<u64>,
    /// For a prefix that is not listed, a sample of the row and the masses of its blocks.
    survey: Survey,
    blocks: Blocks,
    work_maxima: Vec<f32>,
    work_keys: Vec<u64>,
    work_pairs: Vec<(u64, u64)>,
}

/// The tokens that survive the filters, which are those up to the key `last`.
enum Kept {
    /// All of them are listed with their masses. The list may contain other tokens too.
    Listed { last: u64 },
    /// They are too many for a list. If `near` is given, `scratch.blocks` has the masses of those up to it, and the rest are
    /// listed.
    Long { last: u64, near: Option<u64> },
}

impl Kept {
    fn last(&self) -> u64 {
        let (Kept::Listed { last } | Kept::Long { last, .. }) = *self;
        last
    }

    /// Narrows the kept set to the tokens up to `limit`.
    fn up_to(self, limit: u64) -> Kept {
        match self {
            Kept::Listed { last } => Kept::Listed { last: last.min(limit) },
            Kept::Long { last, near } => Kept::Long { last: last.min(limit), near: near.filter(|&near| near <= limit) },
        }
    }
}

/// Returns a key that comes after all tokens with a logit of at least `floor`, however many tokens share that logit.
fn down_to(floor: f32) -> u64 {
    order::key(floor, u32::MAX as usize)
}

/// Returns the length of the longest list worth making. Beyond it, passes over the row are faster.
fn most_listed(tokens: usize) -> usize {
    (tokens / 16).max(1024)
}

/// If the standard deviation of an estimate is a larger share of it than this, a better estimate is needed.
const UNSURE: f64 = 0.25;

/// Applies the filters in their order. Returns None if there are no filters, in which case every token is kept.
/// `scratch.maxima` must hold the block maxima of the row, and the temperature must not be 0.
#[inline(always)]
fn keep<I: Vector, T: Logit>(
    row: &[T],
    mass: Mass,
    params: &Params,
    scratch: &mut Scratch,
) -> Result<Option<Kept>, RowError> {
    let k = usize::try_from(params.top_k).unwrap_or(usize::MAX);
    let least = (params.min_p * (1u64 << S) as f64).ceil() as u64;
    let lightest = if least > 0 { down_to(mass.least_logit(least)) } else { order::end(row.len()) };
    let kept = if 0 < k && k < row.len() {
        if k <= most_listed(row.len()) {
            let last = scratch.list_top_k::<I, T>(row, k)?;
            scratch.weigh(mass);
            Kept::Listed { last: if params.top_p < 1.0 { scratch.last_of_listed(params.top_p)? } else { last } }
        } else {
            let last = scratch.last_of_top_k::<I, T>(row, k)?;
            if params.top_p < 1.0 {
                scratch.long_nucleus::<I, T>(row, mass, params.top_p, last, None)?
            } else {
                Kept::Long { last, near: None }
            }
        }
    } else if params.top_p < 1.0 {
        scratch.nucleus::<I, T>(row, mass, params.top_p)?
    } else if least == 0 {
        return Ok(None);
    } else if scratch.list::<I, T>(row, mass, lightest, most_listed(row.len())) {
        Kept::Listed { last: lightest }
    } else {
        Kept::Long { last: lightest, near: None }
    };
    Ok(Some(kept.up_to(lightest)))
}

impl Scratch {
    /// Reserves the most memory that a row of `tokens` tokens may need, so that no buffer grows later. A `Vec` that cannot
    /// grow ends the process, whereas this returns an error. On most systems, memory that is reserved but not used takes up
    /// nothing.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        let blocks = tokens.div_ceil(BLOCK).next_multiple_of(argmax::GROUP);
        let Scratch { maxima, ledger, keys, masses, survey, blocks: weighed, work_maxima, work_keys, work_pairs } =
            self;
        reserve(maxima, blocks)?;
        reserve(work_maxima, blocks)?;
        ledger.reserve(blocks)?;
        weighed.reserve(blocks)?;
        survey.reserve(tokens)?;
        reserve(keys, tokens)?;
        reserve(masses, tokens)?;
        reserve(work_keys, tokens)?;
        reserve(work_pairs, tokens)
    }

    #[inline(always)]
    fn weigh(&mut self, mass: Mass) {
        mass.of_all(self.keys.iter().map(|&key| order::logit(key)), &mut self.masses);
    }

    /// Lists the tokens up to `last` with their masses. Returns false if there are more than `limit` of them.
    #[inline(always)]
    fn list<I: Vector, T: Logit>(&mut self, row: &[T], mass: Mass, last: u64, limit: usize) -> bool {
        let listed = candidates::collect::<I, T>(row, &self.maxima, Prefix::to(last), limit, &mut self.keys);
        if listed {
            self.weigh(mass);
        }
        listed
    }

    /// Lists the k largest tokens, or all tokens that are not banned if those are fewer. Returns a key that comes after all of
    /// them and before the others.
    #[inline(always)]
    fn list_top_k<I: Vector, T: Logit>(&mut self, row: &[T], k: usize) -> Result<u64, RowError> {
        let floor = top_k::floor::<I>(&self.maxima, k, &mut self.work_maxima);
        // Only ties at the floor can make the list longer than this.
        let limit = k.saturating_mul(BLOCK).min(most_listed(row.len()));
        if candidates::collect::<I, T>(row, &self.maxima, Prefix::to(down_to(floor)), limit, &mut self.keys) {
            let last = top_k::last_key(&self.keys, k, &mut self.work_keys);
            self.keys.retain(|&key| key <= last);
            Ok(last)
        } else {
            let last = self.last_of_top_k::<I, T>(row, k)?;
            candidates::collect::<I, T>(row, &self.maxima, Prefix::to(last), k, &mut self.keys);
            Ok(last)
        }
    }

    /// Returns the key of the last of the k largest tokens, banned tokens included. k < row.len()
    #[inline(always)]
    fn last_of_top_k<I: Vector, T: Logit>(&mut self, row: &[T], k: usize) -> Result<u64, RowError> {
        self.survey.take(row);
        self.survey.seek_count(row.len() - k);
        let end = order::end(row.len());
        loop {
            let (near, far) = self.survey.between(end);
            let count = prefix::count::<I, T>(row, &self.maxima, Prefix::to(near), Prefix::to(far), &mut self.keys);
            if count < k && k - count <= self.keys.len() {
                return Ok(top_k::last_key(&self.keys, k - count, &mut self.work_keys));
            }
            if (near, far) == (order::START, end) {
                return Err(RowError::Changed); // the keys covered the whole row, which has more than k tokens
            }
        }
    }

    /// Returns the key of the last token of the nucleus of the listed tokens.
    #[inline(always)]
    fn last_of_listed(&mut self, p: f64) -> Result<u64, RowError> {
        let need = top_p::need(p, self.masses.iter().sum());
        self.listed_last((need, need)).ok_or(RowError::Changed)
    }

    /// Returns the key of the listed token at which the mass, in the total order, reaches what is needed. Returns None if it
    /// is not the same token for the least and for the most that may be needed.
    #[inline(always)]
    fn listed_last(&mut self, needs: (u64, u64)) -> Option<u64> {
        top_p::last_key(&self.keys, &self.masses, needs, &mut self.work_pairs)
    }

    /// Finds the nucleus of a whole row. If it has few tokens, it is found in a list of the heaviest ones, and the bounds of
    /// the row's mass are refined until the last token is certain.
    #[inline(always)]
    fn nucleus<I: Vector, T: Logit>(&mut self, row: &[T], mass: Mass, p: f64) -> Result<Kept, RowError> {
        const HEAVY: u64 = 1 << (S - 6); // a small nucleus has no lighter tokens than this
        let limit = most_listed(row.len());
        let mut least = HEAVY;
        let mut listed = self.list::<I, T>(row, mass, down_to(mass.floor(HEAVY)), limit / 4);
        let is_open = listed;
        if is_open {
            self.ledger.open::<I, T>(row, &self.maxima, mass);
        }
        while listed {
            let (low_total, high_total) = self.ledger.total();
            let needs = (top_p::need(p, low_total), top_p::need(p, high_total));
            if self.masses.iter().sum::<u64>() >= needs.1 {
                if let Some(last) = self.listed_last(needs) {
                    return Ok(Kept::Listed { last });
                }
                self.ledger.refine::<I, T>(row, &self.maxima, mass)?;
            } else {
                let mut tokens = 0;
                if least == HEAVY {
                    (least, tokens) = top_p::guess_least_mass::<I, T>(row, mass, needs.0, low_total);
                    least = least.min(HEAVY >> 3);
                } else {
                    least >>= 4;
                }
                listed =
                    least > 0 && tokens <= limit && self.list::<I, T>(row, mass, down_to(mass.floor(least)), limit);
            }
        }
        let total = is_open.then(|| self.ledger.total().0);
        self.survey.take(row);
        self.long_nucleus::<I, T>(row, mass, p, order::end(row.len()), total)
    }

    /// Finds the nucleus of the tokens up to `last` in a row that has been surveyed. `total` is approximately the mass of the
    /// row, if that is known.
    #[inline(always)]
    fn long_nucleus<I: Vector, T: Logit>(
        &mut self,
        row: &[T],
        mass: Mass,
        p: f64,
        last: u64,
        total: Option<u64>,
    ) -> Result<Kept, RowError> {
        let after = self.survey.weigh(mass, last);
        let (mut estimate, mut deviation) = match total {
            Some(total) => (total as f64 - after, 0.0),
            None => self.survey.total(mass, &self.maxima, last),
        };
        if deviation > UNSURE * estimate {
            self.ledger.open::<I, T>(row, &self.maxima, mass);
            (estimate, deviation) = (self.ledger.total().0 as f64 - after, 0.0);
        }
        self.survey.seek_mass((1.0 - p) * estimate, (1.0 - p) * deviation);
        let mut is_exact = false;
        loop {
            let (near, far) = self.survey.between(last);
            let total = self.blocks.weigh::<I, T>(row, &self.maxima, mass, [near, far, last], &mut self.keys);
            self.weigh(mass);
            let (need, before) = (top_p::need(p, total), self.blocks.total());
            if before < need && need - before <= self.masses.iter().sum() {
                let need = need - before;
                let last = self.listed_last((need, need)).ok_or(RowError::Changed)?;
                return Ok(Kept::Long { last, near: Some(near) });
            }
            if (near, far) == (order::START, last) {
                return Err(RowError::Changed); // the keys covered all tokens, which have the mass that is needed
            }
            if !is_exact {
                self.survey.seek_mass(total.saturating_sub(need) as f64, 0.0);
                is_exact = true;
            }
        }
    }

    /// Iterates over the listed tokens up to `last`, with their masses.
    #[inline(always)]
    fn listed(&self, last: u64) -> impl Iterator<Item = (u64, u64)> {
        self.keys.iter().copied().zip(self.masses.iter().copied()).filter(move |&(key, _)| key <= last)
    }

    /// Returns the token that the word draws from the kept tokens.
    #[inline(always)]
    fn draw<I: Vector, T: Logit>(&mut self, row: &[T], mass: Mass, kept: Kept, word: u64) -> Result<usize, RowError> {
        let drawn = match kept {
            Kept::Listed { last } => {
                let masses = || {
                    let listed = self.keys.iter().zip(&self.masses);
                    listed.map(move |(&key, &mass)| if key <= last { mass } else { 0 })
                };
                draw::find(masses(), draw::target(word, masses().sum())).map(|place| order::id(self.keys[place]))
            }
            Kept::Long { last, near } => {
                if near.is_none() {
                    self.blocks.weigh::<I, T>(row, &self.maxima, mass, [last; 3], &mut self.keys);
                    self.masses.clear();
                }
                let total = self.blocks.total() + self.listed(last).map(|(_, mass)| mass).sum::<u64>();
                self.blocks.find::<I, T>(row, mass, last, draw::target(word, total), self.listed(last))
            }
        };
        drawn.ok_or(RowError::Changed)
    }
}

per_isa! {
    /// Returns the lowest id among the largest logits.
    pub fn argmax<I: Vector, T: Logit>(row: &[T], scratch: &mut Scratch) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        argmax::argmax(row, &scratch.maxima, maximum)
    }
}

per_isa! {
    /// Returns the token that the random word draws from the tokens that the parameters keep.
    pub fn sample<I: Vector, T: Logit>(
        row: &[T], params: &Params, word: u64, scratch: &mut Scratch,
    ) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return argmax::argmax(row, &scratch.maxima, maximum);
        }
        let mass = Mass::new(maximum, params.temperature);
        if let Some(kept) = keep::<I, T>(row, mass, params, scratch)? {
            return scratch.draw::<I, T>(row, mass, kept, word);
        }
        let Scratch { ledger, maxima, .. } = scratch;
        ledger.open::<I, T>(row, maxima, mass);
        loop {
            if let Some(id) = draw::from_row::<I, T>(row, mass, ledger, word) {
                return Ok(id);
            }
            ledger.refine::<I, T>(row, maxima, mass)?;
        }
    }
}

per_isa! {
    /// Returns the ids and probabilities of the tokens that the parameters keep, the most probable first.
    pub fn candidates<I: Vector, T: Logit>(
        row: &[T], params: &Params, scratch: &mut Scratch,
    ) -> Result<(Vec<i64>, Vec<f64>), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return Ok((vec![argmax::argmax(row, &scratch.maxima, maximum)? as i64], vec![1.0]));
        }
        let mass = Mass::new(maximum, params.temperature);
        let kept = keep::<I, T>(row, mass, params, scratch)?;
        let last = kept.map_or(u64::MAX, |kept| kept.last()).min(down_to(f32::MIN));
        candidates::collect::<I, T>(row, &scratch.maxima, Prefix::to(last), usize::MAX, &mut scratch.keys);
        scratch.keys.sort_unstable();
        scratch.weigh(mass);
        let Scratch { keys, masses, .. } = scratch;
        let total = masses.iter().sum::<u64>() as f64;
        if total == 0.0 {
            return Err(RowError::Changed); // the maximum always has a mass
        }
        let (mut ids, mut probs) = (Vec::new(), Vec::new());
        reserve(&mut ids, keys.len())?;
        reserve(&mut probs, keys.len())?;
        for (&key, &mass) in keys.iter().zip(&*masses) {
            ids.push(order::id(key) as i64);
            probs.push(mass as f64 / total);
        }
        Ok((ids, probs))
    }
}

per_isa! {
    /// Fills `out` with the row, and with -inf in place of each token that a filter drops.
    pub fn mask_logits<I: Vector, T: Logit>(
        row: &[T], params: &Params, out: &mut [T], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            let id = argmax::argmax(row, &scratch.maxima, maximum)?;
            out.fill(T::NEG_INFINITY);
            out[id] = row[id];
            return Ok(());
        }
        let Some(kept) = keep::<I, T>(row, Mass::new(maximum, params.temperature), params, scratch)? else {
            out.copy_from_slice(row);
            return Ok(());
        };
        prefix::copy::<I, T>(row, &scratch.maxima, Prefix::to(kept.last()), out);
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the probabilities of the row. At temperature 0 the probability of the argmax is 1.
    pub fn softmax<I: Vector, T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(0.0);
            out[argmax::argmax(row, &scratch.maxima, maximum)?] = 1.0;
        } else {
            softmax::softmax::<I, T>(row, &scratch.maxima, Mass::new(maximum, temperature), out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the natural logarithms of the probabilities.
    pub fn log_softmax<I: Vector, T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(f32::NEG_INFINITY);
            out[argmax::argmax(row, &scratch.maxima, maximum)?] = 0.0;
        } else {
            let mass = Mass::new(maximum, temperature);
            let total = scratch.ledger.exact_total::<I, T>(row, &scratch.maxima, mass);
            softmax::log_softmax(row, maximum, temperature, total, out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `values` and `ids`, which must have the same length k, at most that of the row, with the k largest logits and
    /// their ids, in the total order.
    pub fn top_k<I: Vector, T: Logit>(
        row: &[T], values: &mut [T], ids: &mut [i64], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        argmax::block_maxima(row, &mut scratch.maxima)?;
        let k = values.len();
        if k == 0 {
            return Ok(());
        }
        let is_short = k <= most_listed(row.len());
        if is_short {
            scratch.list_top_k::<I, T>(row, k)?;
        }
        if !is_short || scratch.keys.len() < k {
            // The list is long, or banned tokens fill the rest of it, as they would after any sort.
            let last = if k < row.len() { scratch.last_of_top_k::<I, T>(row, k)? } else { order::end(row.len()) };
            candidates::collect::<I, T>(row, &scratch.maxima, Prefix::to(last), k, &mut scratch.keys);
        }
        if scratch.keys.len() < k {
            return Err(RowError::Changed);
        }
        scratch.keys.sort_unstable();
        for ((value, id), &key) in values.iter_mut().zip(ids).zip(&scratch.keys) {
            *id = order::id(key) as i64;
            *value = row[order::id(key)];
        }
        Ok(())
    }
}

/// Tests what `kernels/mod.rs` promises for a row that another thread writes to: every recipe ends, with an answer or an
/// error. Here the row changes under the kernels without a race, because a logit sometimes has another value when it is read.
#[cfg(test)]
mod changing_rows {
    use std::cell::Cell;

    use super::*;
    use crate::isa::Isa;
    use crate::kernels::argmax::{GROUP, LANES, lanes, max};

    thread_local! {
        /// The state of a random generator, and in how many reads a logit changes once on average.
        static RANDOM: Cell<(u64, u64)> = const { Cell::new((1, 1)) };
    }

    /// Returns a random number below `below`.
    fn random(below: u64) -> u64 {
        RANDOM.with(|random| {
            let (mut x, seldom) = random.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            random.set((x, seldom));
            (x >> 16) % below
        })
    }

    #[derive(Clone, Copy)]
    struct Fickle(f32);

    impl Logit for Fickle {
        const NEG_INFINITY: Self = Fickle(f32::NEG_INFINITY);
        type Lane = f32;

        fn to_f32(self) -> f32 {
            // -inf also pads the last block, which is in memory that nobody else can write to.
            if self.0 == f32::NEG_INFINITY || random(RANDOM.get().1) != 0 {
                return self.0;
            }
            // The changes are small, because the sums of masses overflow far above the maximum that was seen. They wrap around
            // in a release build, but this build checks for overflow. tests/test_soundness.py has no such limit.
            [f32::NAN, f32::NEG_INFINITY, self.0 - 2.0, self.0 - 0.1, self.0 + 0.5][random(5) as usize]
        }

        fn lanes(block: &[Self; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
            lanes(&block.map(Fickle::to_f32), nan)
        }

        fn larger(a: f32, b: f32) -> f32 {
            max(a, b)
        }

        fn of_lane(lane: f32) -> f32 {
            lane
        }
    }

    #[test]
    fn every_recipe_ends_with_an_answer_or_an_error() {
        let (mut answers, mut changes) = (0, 0);
        let mut scratch = Scratch::default();
        for (size, rounds) in [(1u64, 200), (64, 200), (200, 200), (5_000, 60), (40_000, 12)] {
            for round in 0..rounds {
                RANDOM.set((round * 2 + 1, [size.div_ceil(4), size, size * 4][round as usize % 3]));
                let spread = [0.0, 1.0, 8.0][random(3) as usize];
                let row: Vec<Fickle> =
                    (0..size).map(|_| Fickle((random(1 << 20) as f32 / (1 << 19) as f32 - 1.0) * spread)).collect();
                scratch.reserve(row.len()).unwrap();
                let k = row.len().div_ceil(2);
                let mut count = |error: Option<RowError>| match error {
                    None => answers += 1,
                    Some(RowError::Changed) => changes += 1,
                    Some(RowError::NotFinite { .. } | RowError::Empty) => (),
                    Some(RowError::OutOfMemory) => panic!("not enough memory"),
                };
                let isa = *Isa::available().last().unwrap();
                let params = [
                    Params { temperature: 0.0, ..Params::default() },
                    Params { temperature: 0.7, ..Params::default() },
                    Params { temperature: 0.7, top_p: 0.9, ..Params::default() },
                    Params { temperature: 5.0, top_p: 0.9, ..Params::default() },
                    Params { temperature: 5.0, top_p: 0.0, ..Params::default() },
                    Params { temperature: 5.0, top_k: k as u64, top_p: 0.999, ..Params::default() },
                    Params { top_k: 50, top_p: 0.9, min_p: 0.1, ..Params::default() },
                    Params { temperature: 5.0, min_p: 1e-9, ..Params::default() },
                ];
                let (mut wide, mut out) = (vec![0.0; row.len()], row.clone());
                for params in params {
                    count(sample(isa, &row, &params, random(1 << 40) << 24, &mut scratch).err());
                    count(candidates(isa, &row, &params, &mut scratch).err());
                    count(mask_logits(isa, &row, &params, &mut out, &mut scratch).err());
                    count(softmax(isa, &row, params.temperature, &mut wide, &mut scratch).err());
                    count(log_softmax(isa, &row, params.temperature, &mut wide, &mut scratch).err());
                }
                for k in [1, k] {
                    count(top_k(isa, &row, &mut out[..k], &mut vec![0; k], &mut scratch).err());
                }
                count(argmax(isa, &row, &mut scratch).err());
            }
        }
        assert!(answers > 1000 && changes > 100, "{answers} answers, {changes} changes seen");
    }
}
