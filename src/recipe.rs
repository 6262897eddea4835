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
use crate::isa::{Vector, per_isa};
use crate::kernels::ledger::Ledger;
use crate::kernels::mass::{Mass, S};
use crate::kernels::top_p::Buckets;
use crate::kernels::{argmax, candidates, draw, order, softmax, top_k, top_p};
use crate::logit::Logit;
use crate::params::Params;

/// Memory that the recipes reuse from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The maximum of each block.
    maxima: Vec<f32>,
    /// What is known of the mass of each block.
    ledger: Ledger,
    /// The tokens that may survive, in id order, as keys; and their masses.
    keys: Vec<u64>,
    masses: Vec<u64>,
    work_maxima: Vec<f32>,
    work_keys: Vec<u64>,
    work_pairs: Vec<(u64, u64)>,
    buckets: Buckets,
}

/// What survives the filters: the listed tokens up to the key `last` that have a mass of at least `least`. The list is
/// `scratch.keys`, with `scratch.masses`.
#[derive(Clone, Copy)]
struct Kept {
    last: u64,
    least: u64,
}

impl Kept {
    #[inline(always)]
    fn holds(self, key: u64, mass: u64) -> bool {
        (key <= self.last) & (mass >= self.least)
    }
}

/// Applies the filters, in their order; None if there is none, and every token is kept. `scratch.maxima` are the maxima of
/// the row's blocks; the temperature is not 0.
#[inline(always)]
fn keep<I: Vector, T: Logit>(row: &[T], mass: Mass, params: &Params, scratch: &mut Scratch) -> Option<Kept> {
    let k = usize::try_from(params.top_k).unwrap_or(usize::MAX);
    let least = (params.min_p * (1u64 << S) as f64).ceil() as u64;
    let mut last = u64::MAX;
    if 0 < k && k < row.len() {
        scratch.list_top_k::<I, T>(row, k);
        scratch.weigh(mass);
        if params.top_p < 1.0 {
            let need = top_p::need(params.top_p, scratch.masses.iter().sum());
            scratch.buckets.fill(&scratch.masses);
            last = scratch.last_of_nucleus((need, need)).expect("one need has one answer");
        }
    } else if params.top_p < 1.0 {
        last = list_nucleus::<I, T>(row, mass, params.top_p, scratch);
    } else if least > 0 {
        candidates::collect::<I, T>(row, &scratch.maxima, mass.floor(least), &mut scratch.keys);
        scratch.weigh(mass);
    } else {
        return None;
    }
    Some(Kept { last, least })
}

/// Lists tokens that hold the nucleus of a whole row, and gives the key of its last. Lists ever more of the heaviest tokens
/// until they hold it, and refines what is known of the row's mass until the last token is certain.
#[inline(always)]
fn list_nucleus<I: Vector, T: Logit>(row: &[T], mass: Mass, p: f64, scratch: &mut Scratch) -> u64 {
    const FEW: u64 = 1 << (S - 6); // a small nucleus has only tokens at least so heavy
    scratch.ledger.open::<I, T>(row, &scratch.maxima, mass);
    let mut least = FEW;
    let mut guessed = false;
    scratch.list::<I, T>(row, mass, least);
    loop {
        let (low_total, high_total) = scratch.ledger.total();
        let needs = (top_p::need(p, low_total), top_p::need(p, high_total));
        let listed: u64 = scratch.masses.iter().sum();
        if listed >= needs.1 {
            if let Some(last) = scratch.last_of_nucleus(needs) {
                return last;
            }
        } else if least > 1 {
            least = if guessed {
                least >> 3
            } else {
                top_p::guess_least_mass(row, mass, needs.0, low_total).min(least >> 3)
            };
            least = least.max(1);
            guessed = true;
            scratch.list::<I, T>(row, mass, least);
            continue;
        }
        scratch.ledger.refine::<I, T>(row, mass);
    }
}

impl Scratch {
    #[inline(always)]
    fn weigh(&mut self, mass: Mass) {
        mass.of_all(self.keys.iter().map(|&key| order::logit(key)), &mut self.masses);
    }

    /// Lists the tokens with a mass of at least `least`.
    #[inline(always)]
    fn list<I: Vector, T: Logit>(&mut self, row: &[T], mass: Mass, least: u64) {
        candidates::collect::<I, T>(row, &self.maxima, mass.floor(least), &mut self.keys);
        self.weigh(mass);
        self.buckets.fill(&self.masses);
    }

    /// The key of the last token of the nucleus of what is listed, if it is the same for the least and the most needed mass.
    #[inline(always)]
    fn last_of_nucleus(&mut self, needs: (u64, u64)) -> Option<u64> {
        top_p::last_key(&self.keys, &self.masses, needs, &self.buckets, &mut self.work_pairs)
    }

    /// Lists the k largest.
    #[inline(always)]
    fn list_top_k<I: Vector, T: Logit>(&mut self, row: &[T], k: usize) {
        let floor = top_k::floor(&self.maxima, k, &mut self.work_maxima);
        candidates::collect::<I, T>(row, &self.maxima, floor, &mut self.keys);
        let last = top_k::last_key(&self.keys, k, &mut self.work_keys);
        self.keys.retain(|&key| key <= last);
    }

    /// The mass of each listed token, 0 for one that is not kept.
    #[inline(always)]
    fn kept_masses(&self, kept: Kept) -> impl Iterator<Item = u64> {
        let listed = self.keys.iter().zip(&self.masses);
        listed.map(move |(&key, &mass)| if kept.holds(key, mass) { mass } else { 0 })
    }

    /// The kept tokens and their masses, most probable first.
    fn sorted(&mut self, kept: Kept) -> &[(u64, u64)] {
        let listed = self.keys.iter().copied().zip(self.masses.iter().copied());
        self.work_pairs.clear();
        self.work_pairs.extend(listed.filter(|&(key, mass)| kept.holds(key, mass)));
        self.work_pairs.sort_unstable();
        &self.work_pairs
    }
}

per_isa! {
    /// The lowest id among the largest logits.
    pub fn argmax<I: Vector, T: Logit>(row: &[T], scratch: &mut Scratch) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        Ok(argmax::argmax(row, &scratch.maxima, maximum))
    }
}

per_isa! {
    /// The token that the random word draws from what the parameters keep.
    pub fn sample<I: Vector, T: Logit>(
        row: &[T], params: &Params, word: u64, scratch: &mut Scratch,
    ) -> Result<usize, RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return Ok(argmax::argmax(row, &scratch.maxima, maximum));
        }
        let mass = Mass::new(maximum, params.temperature);
        if let Some(kept) = keep::<I, T>(row, mass, params, scratch) {
            let total = scratch.kept_masses(kept).sum();
            let place = draw::find(scratch.kept_masses(kept), draw::target(word, total));
            return Ok(order::id(scratch.keys[place]));
        }
        let Scratch { ledger, maxima, .. } = scratch;
        ledger.open::<I, T>(row, maxima, mass);
        loop {
            if let Some(id) = draw::from_row(row, mass, ledger, word) {
                return Ok(id);
            }
            ledger.refine::<I, T>(row, mass);
        }
    }
}

per_isa! {
    /// The ids and probabilities of what the parameters keep, most probable first.
    pub fn candidates<I: Vector, T: Logit>(
        row: &[T], params: &Params, scratch: &mut Scratch,
    ) -> Result<(Vec<i64>, Vec<f64>), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            return Ok((vec![argmax::argmax(row, &scratch.maxima, maximum) as i64], vec![1.0]));
        }
        let mass = Mass::new(maximum, params.temperature);
        let kept = match keep::<I, T>(row, mass, params, scratch) {
            Some(kept) => kept,
            None => {
                candidates::collect::<I, T>(row, &scratch.maxima, f32::MIN, &mut scratch.keys);
                scratch.weigh(mass);
                Kept { last: u64::MAX, least: 0 }
            }
        };
        let total = scratch.kept_masses(kept).sum::<u64>() as f64;
        Ok(scratch.sorted(kept).iter().map(|&(key, mass)| (order::id(key) as i64, mass as f64 / total)).unzip())
    }
}

per_isa! {
    /// Fills `out` with the row, but -inf where a filter drops the token.
    pub fn mask_logits<I: Vector, T: Logit>(
        row: &[T], params: &Params, out: &mut [T], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if params.temperature == 0.0 {
            let id = argmax::argmax(row, &scratch.maxima, maximum);
            out.fill(T::NEG_INFINITY);
            out[id] = row[id];
            return Ok(());
        }
        let Some(kept) = keep::<I, T>(row, Mass::new(maximum, params.temperature), params, scratch) else {
            out.copy_from_slice(row);
            return Ok(());
        };
        out.fill(T::NEG_INFINITY);
        for (&key, &mass) in scratch.keys.iter().zip(&scratch.masses) {
            if kept.holds(key, mass) {
                out[order::id(key)] = row[order::id(key)];
            }
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `out` with the probabilities of the row; at temperature 0 that of the argmax is 1.
    pub fn softmax<I: Vector, T: Logit>(
        row: &[T], temperature: f64, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let maximum = argmax::block_maxima(row, &mut scratch.maxima)?;
        if temperature == 0.0 {
            out.fill(0.0);
            out[argmax::argmax(row, &scratch.maxima, maximum)] = 1.0;
        } else {
            softmax::softmax(row, Mass::new(maximum, temperature), out);
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
            out[argmax::argmax(row, &scratch.maxima, maximum)] = 0.0;
        } else {
            let mass = Mass::new(maximum, temperature);
            let total = scratch.ledger.exact_total(row, mass);
            softmax::log_softmax(row, maximum, temperature, total, out);
        }
        Ok(())
    }
}

per_isa! {
    /// Fills `values` and `ids`, which are of the same length k, with the k largest logits and where they stand, in the total
    /// order.
    pub fn top_k<I: Vector, T: Logit>(
        row: &[T], values: &mut [T], ids: &mut [i64], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        argmax::block_maxima(row, &mut scratch.maxima)?;
        let k = values.len();
        scratch.list_top_k::<I, T>(row, k);
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
