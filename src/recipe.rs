//! One row, whole: each operation from logits to answer, compiled for every instruction set.
//!
//! Every filter keeps a prefix of the total order (`kernels/order.rs`), so what survives is always described by one key, that
//! of its last token. The steps of a draw:
//!
//! 1. `argmax`: the maxima of the blocks, and the row's;
//! 2. the tokens that can survive: at most a few thousand, in id order (`candidates`), or all;
//! 3. their masses, and the filters on them: `top_k`, `top_p`, min-p;
//! 4. the draw, in id order.

use crate::error::RowError;
use crate::isa::per_isa;
use crate::kernels::mass::{Mass, S};
use crate::kernels::{argmax, candidates, draw, order, softmax, top_k, top_p};
use crate::logit::Logit;
use crate::params::Params;

/// Memory that the recipes reuse from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The maximum of each block.
    maxima: Vec<f32>,
    /// The mass of each block.
    sums: Vec<u64>,
    /// The tokens that may survive, in id order, as keys; and their masses.
    keys: Vec<u64>,
    masses: Vec<u64>,
    work_maxima: Vec<f32>,
    work_keys: Vec<u64>,
    work_pairs: Vec<(u64, u64)>,
}

/// What survives the filters.
#[derive(Clone, Copy)]
enum Kept {
    /// Every token; `total` is their mass, `scratch.sums` that of each block.
    All { total: u64 },
    /// The tokens of `scratch.keys`, with the masses of `scratch.masses`; `total` is their mass.
    Listed { total: u64 },
}

/// Applies the filters, in their order. `maximum` is the row's, and `scratch.maxima` its blocks'; the temperature is not 0.
#[inline(always)]
fn keep<T: Logit>(row: &[T], mass: Mass, params: &Params, scratch: &mut Scratch) -> Kept {
    let k = usize::try_from(params.top_k).unwrap_or(usize::MAX);
    let least = (params.min_p * (1u64 << S) as f64).ceil() as u64;
    if 0 < k && k < row.len() {
        let floor = top_k::floor(&scratch.maxima, k, &mut scratch.work_maxima);
        candidates::collect(row, &scratch.maxima, floor, &mut scratch.keys);
        let last = top_k::last_key(&scratch.keys, k, &mut scratch.work_keys);
        scratch.keys.retain(|&key| key <= last);
        scratch.weigh(mass);
        let total = scratch.masses.iter().sum();
        if params.top_p < 1.0 {
            scratch.keep_nucleus(top_p::need(params.top_p, total));
        }
    } else if params.top_p < 1.0 {
        let total = mass.of_blocks(row, &scratch.maxima, &mut scratch.sums);
        let need = top_p::need(params.top_p, total);
        let floor = mass.floor(top_p::least_mass(need, total, row.len()));
        candidates::collect(row, &scratch.maxima, floor, &mut scratch.keys);
        scratch.weigh(mass);
        scratch.keep_nucleus(need);
    } else if least > 0 {
        candidates::collect(row, &scratch.maxima, mass.floor(least), &mut scratch.keys);
        scratch.weigh(mass);
    } else {
        return Kept::All { total: mass.of_blocks(row, &scratch.maxima, &mut scratch.sums) };
    }
    if least > 0 {
        scratch.keep_where(|_, mass| mass >= least);
    }
    Kept::Listed { total: scratch.masses.iter().sum() }
}

impl Scratch {
    #[inline(always)]
    fn weigh(&mut self, mass: Mass) {
        mass.of_all(self.keys.iter().map(|&key| order::logit(key)), &mut self.masses);
    }

    #[inline(always)]
    fn keep_nucleus(&mut self, need: u64) {
        let last = top_p::last_key(&self.keys, &self.masses, need, &mut self.work_pairs);
        self.keep_where(|key, _| key <= last);
    }

    /// Keeps the tokens of which `keep(key, mass)` is true, in their order.
    #[inline(always)]
    fn keep_where(&mut self, keep: impl Fn(u64, u64) -> bool) {
        let mut kept = 0;
        for place in 0..self.keys.len() {
            let (key, mass) = (self.keys[place], self.masses[place]);
            self.keys[kept] = key;
            self.masses[kept] = mass;
            kept += usize::from(keep(key, mass));
        }
        self.keys.truncate(kept);
        self.masses.truncate(kept);
    }

    /// The kept tokens and their masses, most probable first.
    fn sorted(&mut self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.work_pairs.clear();
        self.work_pairs.extend(self.keys.iter().copied().zip(self.masses.iter().copied()));
        self.work_pairs.sort_unstable();
        self.work_pairs.iter().copied()
    }
}

per_isa! {
    /// The lowest id among the largest logits.
    pub fn argmax<T: Logit>(row: &[T], scratch: &mut Scratch) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        Ok(argmax::argmax(row, &scratch.maxima, maximum))
    }
}

per_isa! {
    /// The token that the random word draws from what the parameters keep.
    pub fn sample<T: Logit>(
        row: &[T], params: &Params, word: u64, scratch: &mut Scratch,
    ) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return Ok(argmax::argmax(row, &scratch.maxima, maximum));
        }
        let mass = Mass::new(maximum, params.temperature);
        Ok(match keep(row, mass, params, scratch) {
            Kept::All { total } => draw::from_row(row, mass, &scratch.sums, draw::target(word, total)),
            Kept::Listed { total } => {
                let (place, _) = draw::find(&scratch.masses, draw::target(word, total));
                order::id(scratch.keys[place])
            }
        })
    }
}

per_isa! {
    /// The ids and probabilities of what the parameters keep, most probable first.
    pub fn candidates<T: Logit>(
        row: &[T], params: &Params, scratch: &mut Scratch,
    ) -> Result<(Vec<i64>, Vec<f64>), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return Ok((vec![argmax::argmax(row, &scratch.maxima, maximum) as i64], vec![1.0]));
        }
        let mass = Mass::new(maximum, params.temperature);
        let total = match keep(row, mass, params, scratch) {
            Kept::Listed { total } => total,
            Kept::All { total } => {
                candidates::collect(row, &scratch.maxima, f32::MIN, &mut scratch.keys);
                scratch.weigh(mass);
                total
            }
        };
        Ok(scratch.sorted().map(|(key, mass)| (order::id(key) as i64, mass as f64 / total as f64)).unzip())
    }
}

per_isa! {
    /// Fills `out` with the row, but -inf where a filter drops the token.
    pub fn mask_logits<T: Logit>(
        row: &[T], params: &Params, out: &mut [T], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            let id = argmax::argmax(row, &scratch.maxima, maximum);
            out.fill(T::NEG_INFINITY);
            out[id] = row[id];
            return Ok(());
        }
        match keep(row, Mass::new(maximum, params.temperature), params, scratch) {
            Kept::All { .. } => out.copy_from_slice(row),
            Kept::Listed { .. } => {
                out.fill(T::NEG_INFINITY);
                for &key in &scratch.keys {
                    out[order::id(key)] = row[order::id(key)];
                }
            }
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the probabilities of the row; at temperature 0 that of the argmax is 1.
    pub fn softmax<T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(0.0);
            out[argmax::argmax(row, &scratch.maxima, maximum)] = 1.0;
        } else {
            softmax::softmax(row, &scratch.maxima, Mass::new(maximum, temperature), out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the natural logarithms of the probabilities.
    pub fn log_softmax<T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(f32::NEG_INFINITY);
            out[argmax::argmax(row, &scratch.maxima, maximum)] = 0.0;
        } else {
            let total = Mass::new(maximum, temperature).of_blocks(row, &scratch.maxima, &mut scratch.sums);
            softmax::log_softmax(row, maximum, temperature, total, out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `values` and `ids`, which are of the same length k, with the k largest logits and where they stand, in the total
    /// order.
    pub fn top_k<T: Logit>(
        row: &[T], values: &mut [T], ids: &mut [i64], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        argmax::block_maxima(row, &mut scratch.maxima)?;
        let k = values.len();
        let floor = top_k::floor(&scratch.maxima, k, &mut scratch.work_maxima);
        candidates::collect(row, &scratch.maxima, floor, &mut scratch.keys);
        let last = top_k::last_key(&scratch.keys, k, &mut scratch.work_keys);
        scratch.keys.retain(|&key| key <= last);
        if scratch.keys.len() < k {
            // Fewer than k are finite: banned tokens fill the rest, as in any sort.
            let banned = row.iter().enumerate().filter(|(_, x)| x.to_f32() == f32::NEG_INFINITY);
            let missing = k - scratch.keys.len();
            scratch.keys.extend(banned.take(missing).map(|(id, x)| order::key(x.to_f32(), id)));
        }
        scratch.keys.sort_unstable();
        for ((value, id), &key) in values.iter_mut().zip(ids).zip(&scratch.keys) {
            *id = order::id(key) as i64;
            *value = row[order::id(key)];
        }
        Ok(())
    }
}
