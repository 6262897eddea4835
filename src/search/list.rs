//! The first rung of the search: a list of tokens with their masses.

use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::kernels::draw::{self, Drawn};
use crate::kernels::mass::Mass;
use crate::kernels::order::{self, Prefix};
use crate::kernels::select::select;
use crate::kernels::{candidates, top_k, top_p};
use crate::lanes::BLOCK;
use crate::rng::Draws;
use crate::row::Row;

/// Tokens in the order of the ids. No banned token is ever among them.
#[derive(Debug, Default)]
pub(super) struct List {
    keys: Vec<u64>,
    /// The mass of each of them, if they have been weighed.
    masses: Vec<u64>,
    work_keys: Vec<u64>,
    work_masses: Vec<u64>,
    work_pairs: Vec<(u64, u64)>,
    /// The places of the logits in descending order.
    places: Vec<u32>,
    work_places: Vec<u32>,
}

impl List {
    /// Reserves memory for a row with this many tokens.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        let List { keys, masses, work_keys, work_masses, work_pairs, places, work_places } = self;
        reserve(keys, tokens)?;
        reserve(masses, tokens)?;
        reserve(work_keys, tokens)?;
        reserve(work_masses, tokens)?;
        reserve(work_pairs, tokens)?;
        reserve(places, tokens)?;
        reserve(work_places, tokens)
    }

    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    pub fn masses(&self) -> &[u64] {
        &self.masses
    }

    /// Gives the masses to a method that replaces them.
    pub fn masses_to_replace(&mut self) -> &mut [u64] {
        &mut self.masses
    }

    /// Gives the list to a pass that fills it with keys of its own, which are to be weighed afterwards.
    pub fn keys_to_fill(&mut self) -> &mut Vec<u64> {
        self.masses.clear();
        &mut self.keys
    }

    /// Lists the tokens of a prefix. Returns false, with an incomplete list, if there are more than `limit` of them.
    #[inline(always)]
    pub fn collect<R: Row>(&mut self, row: &R, prefix: Prefix, limit: usize) -> bool {
        candidates::collect(row, prefix, limit, &mut self.keys)
    }

    /// Computes the masses of the listed tokens.
    #[inline(always)]
    pub fn weigh<I: Vector>(&mut self, mass: Mass) {
        I::run(move || mass.of_all(self.keys.iter().map(|&key| order::logit(key)), &mut self.masses));
    }

    /// Returns the mass that logits have together. The list is worth nothing afterwards.
    #[inline(always)]
    pub fn total_of_logits<I: Vector>(&mut self, mass: Mass, logits: &[f32]) -> u64 {
        I::run(move || {
            mass.of_all(logits.iter().copied(), &mut self.masses);
            self.masses.iter().sum()
        })
    }

    /// Lists the tokens up to `last` with their masses. Returns false if there are more than `limit` of them.
    #[inline(always)]
    pub fn fill<R: Row>(&mut self, row: &R, mass: Mass, last: u64, limit: usize) -> bool {
        let is_complete = self.collect(row, Prefix::to(last), limit);
        if is_complete {
            self.weigh::<R::Isa>(mass);
        }
        is_complete
    }

    /// Returns the mass of all listed tokens.
    #[inline(always)]
    pub fn total(&self) -> u64 {
        self.masses.iter().sum()
    }

    /// Returns the mass of the tokens up to `last`.
    #[inline(always)]
    pub fn total_up_to<I: Vector>(&self, last: u64) -> u64 {
        I::run(move || self.up_to(last).map(|(_, mass)| mass).sum())
    }

    /// Drops the tokens after `last`, before they are weighed.
    #[inline(always)]
    pub fn truncate(&mut self, last: u64) {
        self.keys.retain(|&key| key <= last);
    }

    /// Drops the tokens that `keeps` is false for, with their masses.
    #[inline(always)]
    pub fn retain(&mut self, keeps: impl Fn(u64) -> bool) {
        let mut kept = 0;
        for place in 0..self.keys.len().min(self.masses.len()) {
            let (key, mass) = (self.keys[place], self.masses[place]);
            self.keys[kept] = key;
            self.masses[kept] = mass;
            kept += usize::from(keeps(key));
        }
        self.keys.truncate(kept);
        self.masses.truncate(kept);
    }

    /// Drops the tokens of another list, before this one is weighed.
    pub fn remove(&mut self, others: &List) {
        let mut others = others.keys.iter().peekable();
        // Both are in the order of the ids.
        self.keys.retain(|key| {
            while others.next_if(|other| order::id(**other) < order::id(*key)).is_some() {}
            others.next_if(|other| *other == key).is_none()
        });
    }

    /// True if one of these tokens is listed, and comes before a key in the total order.
    pub fn has_any_before(&self, key: u64, ids: &[u32]) -> bool {
        ids.iter().any(|&id| {
            let place = self.keys.binary_search_by_key(&(id as usize), |&key| order::id(key));
            place.is_ok_and(|place| self.keys[place] < key)
        })
    }

    /// Returns the key of the `count`-th token in the total order, or a key after all others if there are fewer.
    #[inline(always)]
    pub fn last_of_first<I: Vector>(&mut self, count: usize) -> u64 {
        I::run(move || top_k::last_key(&self.keys, count, &mut self.work_keys))
    }

    /// Returns the key of the token at which the mass, in the total order, reaches what is needed. Returns None if it is not
    /// the same token for the least and for the most that may be needed.
    #[inline(always)]
    pub fn last_reaching<I: Vector>(&mut self, needs: (u64, u64)) -> Option<u64> {
        I::run(move || top_p::last_key(&self.keys, &self.masses, needs, &mut self.work_pairs))
    }

    /// Returns the smallest distance of a surprise from `center` within which the tokens have the mass that is needed, or None
    /// if all of them have less.
    #[inline(always)]
    pub fn distance_reaching<I: Vector>(&mut self, mass: Mass, center: u32, need: u64) -> Option<u32> {
        I::run(move || {
            self.work_pairs.clear();
            for (&key, &token_mass) in self.keys.iter().zip(&self.masses) {
                let distance = mass.surprise(order::logit(key)).abs_diff(center);
                self.work_pairs.push((u64::from(distance) << 32 | order::id(key) as u64, token_mass));
            }
            let (last, _) = select(&mut self.work_pairs, |token| token.0, |token| token.1, need)?;
            Some((last >> 32) as u32)
        })
    }

    /// Returns the smallest distance of a surprise from `center` within which there are `count` tokens, or all if these are
    /// fewer. Returns None if there is no token.
    pub fn distance_of_nearest(&mut self, mass: Mass, center: u32, count: usize) -> Option<u32> {
        self.work_keys.clear();
        for &key in &self.keys {
            let distance = mass.surprise(order::logit(key)).abs_diff(center);
            self.work_keys.push(u64::from(distance) << 32 | order::id(key) as u64);
        }
        let need = count.min(self.keys.len()) as u64;
        let (last, _) = select(&mut self.work_keys, |key| key, |_| 1, need)?;
        Some((last >> 32) as u32)
    }

    /// Returns the keys, in the total order, of the tokens up to `last` that have at least the mass `least`; their masses; and
    /// whether these are all tokens up to `last`.
    #[inline(always)]
    pub fn heaviest<I: Vector>(&mut self, mass: Mass, last: u64, least: u64) -> (&[u64], &[u64], bool) {
        let mut is_all = true;
        self.work_keys.clear();
        for (&key, &mass) in self.keys.iter().zip(&self.masses).filter(|&(&key, _)| key <= last) {
            if mass >= least {
                self.work_keys.push(key);
            } else {
                is_all = false;
            }
        }
        order::sort(&mut self.work_keys, &mut self.work_masses);
        I::run(|| mass.of_all(self.work_keys.iter().map(|&key| order::logit(key)), &mut self.work_masses));
        (&self.work_keys, &self.work_masses, is_all)
    }

    /// Returns the masses of the listed tokens in the total order. They need not have been weighed.
    #[inline(always)]
    pub fn sorted_masses<I: Vector>(&mut self, mass: Mass) -> &[u64] {
        // The ids are not sorted, because a mass depends on the logit alone.
        order::sort_places(&self.keys, &mut self.places, &mut self.work_places);
        I::run(|| mass.of_all(self.places.iter().map(|&place| order::from_place(place)), &mut self.work_masses));
        &self.work_masses
    }

    /// Returns the key of the `count`-th token in the total order, which [`List::sorted_masses`] has found, or None if there are
    /// no more tokens than these.
    pub fn last_of_sorted(&self, count: usize) -> Option<u64> {
        let place = *self.places.get(..self.places.len().checked_sub(1)?)?.get(count.checked_sub(1)?)?;
        let before = self.places.partition_point(|&other| other < place);
        let mut ties = self.keys.iter().copied().filter(|&key| order::place(key) == place); // in the order of the ids
        ties.nth(count - 1 - before)
    }

    /// Iterates over the tokens up to `last`, with their masses.
    #[inline(always)]
    pub fn up_to(&self, last: u64) -> impl Iterator<Item = (u64, u64)> {
        self.keys.iter().copied().zip(self.masses.iter().copied()).filter(move |&(key, _)| key <= last)
    }

    /// Returns the token that the word draws from those up to `last`, or None if they have no mass.
    #[inline(always)]
    pub fn draw(&self, last: u64, word: u64) -> Option<Drawn> {
        let kept = |(&key, &mass): (&u64, &u64)| if key <= last { mass } else { 0 };
        let total = self.keys.iter().zip(&self.masses).map(kept).sum();
        let target = draw::target(word, total);
        // The sum of a part takes less time than a search in it.
        let mut left = target;
        for (keys, masses) in self.keys.chunks(BLOCK).zip(self.masses.chunks(BLOCK)) {
            let part = || keys.iter().zip(masses).map(kept);
            let sum = part().sum();
            if left < sum {
                let hit = draw::find(part(), left)?;
                return Some(Drawn::new(order::id(keys[hit.place]), total, target - hit.into, hit.mass));
            }
            left -= sum;
        }
        None
    }

    /// Draws a token for each place of `tokens` from those up to `last`: see [`Search::draw_several`](super::Search).
    pub fn draw_several(&mut self, last: u64, draws: Draws, tokens: &mut [i64]) -> Result<(), RowError> {
        self.retain(|key| key <= last);
        let mut left = self.total();
        if left == 0 {
            return Err(RowError::Changed); // the tokens that are kept have a mass
        }
        for (draw, token) in tokens.iter_mut().enumerate() {
            if left == 0 {
                *token = -1;
                continue;
            }
            let target = draw::target(draws.words(draw).draw, left);
            let place = draw::find(self.masses.iter().copied(), target).ok_or(RowError::Changed)?.place;
            *token = order::id(self.keys[place]) as i64;
            if !draws.replacement {
                left -= std::mem::take(&mut self.masses[place]);
            }
        }
        Ok(())
    }

    /// Lists tokens, which are given by their keys and masses.
    #[inline(always)]
    pub fn fill_with(&mut self, tokens: impl Iterator<Item = (u64, u64)>) {
        self.clear();
        for (key, mass) in tokens {
            self.keys.push(key);
            self.masses.push(mass);
        }
    }

    /// Drops all tokens.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.masses.clear();
    }

    /// Adds a token at its place.
    pub fn insert(&mut self, key: u64, mass: u64) {
        let place = self.keys.partition_point(|&other| order::id(other) < order::id(key));
        self.keys.insert(place, key);
        self.masses.insert(place, mass);
    }

    /// Sorts the tokens up to `last` into the total order, drops the others, and computes the masses again.
    #[inline(always)]
    pub fn sort<I: Vector>(&mut self, last: u64, mass: Mass) {
        self.truncate(last);
        order::sort(&mut self.keys, &mut self.work_keys);
        self.weigh::<I>(mass);
    }

    /// Sorts the tokens into the total order, with the masses that they have.
    pub fn sort_with_masses(&mut self) {
        self.work_pairs.clear();
        self.work_pairs.extend(self.keys.iter().copied().zip(self.masses.iter().copied()));
        self.work_pairs.sort_unstable();
        for ((key, mass), &pair) in self.keys.iter_mut().zip(&mut self.masses).zip(&self.work_pairs) {
            (*key, *mass) = pair;
        }
    }

    /// Sorts the keys, without their masses, and returns them.
    #[inline(always)]
    pub fn sorted_keys(&mut self) -> &[u64] {
        order::sort(&mut self.keys, &mut self.work_keys);
        &self.keys
    }
}
