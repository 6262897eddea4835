//! Each operation on a whole row, from the logits to the answer, compiled for every instruction set.
//!
//! A draw has these steps:
//!
//! 1. `Row::read` finds the maxima of the blocks and of the row.
//! 2. The filters keep some of the tokens (`methods/`), which a search finds (`search.rs`).
//! 3. The draw goes through the tokens in the order of the ids.

use crate::error::RowError;
use crate::isa::per_isa;
use crate::kernels::mass::Mass;
use crate::kernels::order::{self, Prefix};
use crate::kernels::{argmax, prefix, reserve, softmax};
use crate::lanes::{BLOCK, GROUP};
use crate::logit::Logit;
use crate::methods::keep;
use crate::params::Params;
use crate::row::Row;
use crate::search::Search;

/// Memory that the recipes reuse from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The maximum of each block.
    maxima: Vec<f32>,
    search: Search,
    /// The tokens for which all buffers are large enough.
    reserved: usize,
}

impl Scratch {
    /// Reserves what a row of `tokens` tokens may need at most, so that no buffer grows later: a `Vec` that cannot grow ends
    /// the process, and this is an error instead. What is reserved and not used takes no memory on most systems.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        if tokens > self.reserved {
            reserve(&mut self.maxima, tokens.div_ceil(BLOCK).next_multiple_of(GROUP))?;
            self.search.reserve(tokens)?;
            self.reserved = tokens;
        }
        Ok(())
    }
}

per_isa! {
    /// Returns the lowest id among the largest logits.
    pub fn argmax<I: Vector, T: Logit>(row: &[T], scratch: &mut Scratch) -> Result<usize, RowError> {
        argmax::argmax(&Row::<I, T>::read(row, &mut scratch.maxima)?)
    }
}

per_isa! {
    /// Returns the token that the random word draws from the tokens that the parameters keep.
    pub fn sample<I: Vector, T: Logit>(
        row: &[T], params: &Params, word: u64, scratch: &mut Scratch,
    ) -> Result<usize, RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Row::<I, T>::read(row, maxima)?;
        if params.temperature == 0.0 {
            return argmax::argmax(&row);
        }
        let mass = Mass::new(row.maximum(), params.temperature);
        match keep(&row, mass, params, search)? {
            Some(kept) => search.draw(&row, mass, kept, word),
            None => search.draw_from_all(&row, mass, word),
        }
    }
}

per_isa! {
    /// Returns the ids and probabilities of the tokens that the parameters keep, the most probable first.
    pub fn candidates<I: Vector, T: Logit>(
        row: &[T], params: &Params, scratch: &mut Scratch,
    ) -> Result<(Vec<i64>, Vec<f64>), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Row::<I, T>::read(row, maxima)?;
        if params.temperature == 0.0 {
            return Ok((vec![argmax::argmax(&row)? as i64], vec![1.0]));
        }
        let mass = Mass::new(row.maximum(), params.temperature);
        let kept = keep(&row, mass, params, search)?;
        let (keys, masses) = search.survivors(&row, mass, kept);
        let total = masses.iter().sum::<u64>() as f64;
        if total == 0.0 {
            return Err(RowError::Changed); // the maximum always has a mass
        }
        let (mut ids, mut probs) = (Vec::new(), Vec::new());
        reserve(&mut ids, keys.len())?;
        reserve(&mut probs, keys.len())?;
        for (&key, &mass) in keys.iter().zip(masses) {
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
        let Scratch { maxima, search, .. } = scratch;
        let row = Row::<I, T>::read(row, maxima)?;
        if params.temperature == 0.0 {
            let id = argmax::argmax(&row)?;
            out.fill(T::NEG_INFINITY);
            out[id] = row.stored()[id];
            return Ok(());
        }
        match keep(&row, Mass::new(row.maximum(), params.temperature), params, search)? {
            Some(kept) => prefix::copy(&row, Prefix::to(kept.last()), out),
            None => out.copy_from_slice(row.stored()),
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the probabilities of the row. At temperature 0 the probability of the argmax is 1.
    pub fn softmax<I: Vector, T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let row = Row::<I, T>::read(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(0.0);
            out[argmax::argmax(&row)?] = 1.0;
        } else {
            softmax::softmax(&row, Mass::new(row.maximum(), temperature), out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the natural logarithms of the probabilities.
    pub fn log_softmax<I: Vector, T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Row::<I, T>::read(row, maxima)?;
        if temperature == 0.0 {
            out.fill(f32::NEG_INFINITY);
            out[argmax::argmax(&row)?] = 0.0;
        } else {
            let total = search.total(&row, Mass::new(row.maximum(), temperature));
            softmax::log_softmax(&row, temperature, total, out);
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
        let Scratch { maxima, search, .. } = scratch;
        let row = Row::<I, T>::read(row, maxima)?;
        let k = values.len();
        if k == 0 {
            return Ok(());
        }
        for ((value, id), &key) in values.iter_mut().zip(ids).zip(search.top_k(&row, k)?) {
            *id = order::id(key) as i64;
            *value = row.stored()[order::id(key)];
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
    use crate::lanes::{LANES, lanes, max};

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
