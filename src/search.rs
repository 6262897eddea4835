//! Finds which tokens of a row survive the filters, and draws one of them. The filters themselves are in `methods/`.
//!
//! Every filter keeps a prefix of the total order (`kernels/order.rs`). So one key, that of the last token, always describes
//! the tokens that survive. Where few tokens can survive, they are listed in the order of the ids (`candidates`), and the last
//! one is found in that list. Where the list would be long, the last one is found by passes over the row (`prefix`), between
//! two keys that a sample of the row suggests (`survey`).

use crate::error::RowError;
use crate::isa::Vector;
use crate::kernels::ledger::Ledger;
use crate::kernels::mass::{Mass, S};
use crate::kernels::order::{self, Prefix};
use crate::kernels::prefix::{self, Blocks};
use crate::kernels::survey::Survey;
use crate::kernels::{candidates, draw, reserve, top_k, top_p};
use crate::lanes::BLOCK;
use crate::logit::Logit;
use crate::row::Row;

/// The memory of a search, which is reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Search {
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
pub(crate) enum Kept {
    /// All of them are listed with their masses. The list may contain other tokens too.
    Listed { last: u64 },
    /// They are too many for a list. If `near` is given, `Search::blocks` has the masses of those up to it, and the rest are
    /// listed.
    Long { last: u64, near: Option<u64> },
}

impl Kept {
    pub fn last(&self) -> u64 {
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

/// A row while filters are applied to it: which tokens have been kept so far. It is all that a filter sees.
pub(crate) struct State<'a, I, T> {
    row: Row<'a, I, T>,
    mass: Mass,
    search: &'a mut Search,
    /// None while every token is kept.
    kept: Option<Kept>,
}

impl<'a, I: Vector, T: Logit> State<'a, I, T> {
    /// Begins with all tokens. The mass is that of the row, at a temperature that is not 0.
    #[inline(always)]
    pub fn all(row: Row<'a, I, T>, mass: Mass, search: &'a mut Search) -> Self {
        State { row, mass, search, kept: None }
    }

    /// Returns which tokens are kept, or None if all are.
    #[inline(always)]
    pub fn kept(self) -> Option<Kept> {
        self.kept
    }

    /// Keeps the first `count` tokens of the total order. Comes before the other filters.
    #[inline(always)]
    pub fn keep_first(&mut self, count: usize) -> Result<(), RowError> {
        debug_assert!(self.kept.is_none());
        if count >= self.row.tokens() {
            return Ok(());
        }
        self.kept = Some(if count <= most_listed(self.row.tokens()) {
            let last = self.search.list_top_k(&self.row, count)?;
            self.search.weigh(self.mass);
            Kept::Listed { last: last.min(order::end(self.row.tokens())) }
        } else {
            Kept::Long { last: self.search.last_of_top_k(&self.row, count)?, near: None }
        });
        Ok(())
    }

    /// Keeps the first tokens of the total order that together have at least the share `p` of the mass of what was kept.
    /// Comes after `keep_first` and before the other filters.
    #[inline(always)]
    pub fn keep_share(&mut self, p: f64) -> Result<(), RowError> {
        self.kept = Some(match self.kept {
            None => self.search.nucleus(&self.row, self.mass, p)?,
            Some(Kept::Listed { .. }) => Kept::Listed { last: self.search.last_of_listed(p)? },
            Some(Kept::Long { last, .. }) => self.search.long_nucleus(&self.row, self.mass, p, last, None)?,
        });
        Ok(())
    }

    /// Keeps the tokens with a mass of at least `least`, which is in [1, 2**S].
    #[inline(always)]
    pub fn keep_at_least(&mut self, least: u64) {
        let lightest = down_to(self.mass.least_logit(least));
        self.kept = Some(match self.kept.take() {
            Some(kept) => kept.up_to(lightest),
            None if self.search.list(&self.row, self.mass, lightest, most_listed(self.row.tokens())) => {
                Kept::Listed { last: lightest }
            }
            None => Kept::Long { last: lightest, near: None },
        });
    }
}

impl Search {
    /// Reserves what a row of `tokens` tokens may need at most, so that no buffer grows later.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        let blocks = tokens.div_ceil(BLOCK);
        let Search { ledger, keys, masses, survey, blocks: weighed, work_maxima, work_keys, work_pairs } = self;
        ledger.reserve(blocks)?;
        weighed.reserve(blocks)?;
        survey.reserve(tokens)?;
        reserve(work_maxima, blocks)?;
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
    fn list<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, mass: Mass, last: u64, limit: usize) -> bool {
        let listed = candidates::collect(row, Prefix::to(last), limit, &mut self.keys);
        if listed {
            self.weigh(mass);
        }
        listed
    }

    /// Lists the k largest tokens, or all tokens that are not banned if those are fewer. Returns a key that comes after all of
    /// them and before the others.
    #[inline(always)]
    fn list_top_k<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, k: usize) -> Result<u64, RowError> {
        let floor = top_k::floor(row, k, &mut self.work_maxima);
        // Only ties at the floor can make the list longer than this.
        let limit = k.saturating_mul(BLOCK).min(most_listed(row.tokens()));
        if candidates::collect(row, Prefix::to(down_to(floor)), limit, &mut self.keys) {
            let last = top_k::last_key(&self.keys, k, &mut self.work_keys);
            self.keys.retain(|&key| key <= last);
            Ok(last)
        } else {
            let last = self.last_of_top_k(row, k)?;
            candidates::collect(row, Prefix::to(last), k, &mut self.keys);
            Ok(last)
        }
    }

    /// Returns the key of the last of the k largest tokens, banned tokens included. k < row.tokens()
    #[inline(always)]
    fn last_of_top_k<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, k: usize) -> Result<u64, RowError> {
        self.survey.take(row);
        self.survey.seek_count(row.tokens() - k);
        let end = order::end(row.tokens());
        loop {
            let (near, far) = self.survey.between(end);
            let count = prefix::count(row, Prefix::to(near), Prefix::to(far), &mut self.keys);
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
    fn nucleus<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, mass: Mass, p: f64) -> Result<Kept, RowError> {
        const HEAVY: u64 = 1 << (S - 6); // a small nucleus has no lighter tokens than this
        let limit = most_listed(row.tokens());
        let mut least = HEAVY;
        let mut listed = self.list(row, mass, down_to(mass.floor(HEAVY)), limit / 4);
        let is_open = listed;
        if is_open {
            self.ledger.open(row, mass);
        }
        while listed {
            let (low_total, high_total) = self.ledger.total();
            let needs = (top_p::need(p, low_total), top_p::need(p, high_total));
            if self.masses.iter().sum::<u64>() >= needs.1 {
                if let Some(last) = self.listed_last(needs) {
                    return Ok(Kept::Listed { last });
                }
                self.ledger.refine(row, mass)?;
            } else {
                let mut tokens = 0;
                if least == HEAVY {
                    (least, tokens) = top_p::guess_least_mass(row, mass, needs.0, low_total);
                    least = least.min(HEAVY >> 3);
                } else {
                    least >>= 4;
                }
                listed = least > 0 && tokens <= limit && self.list(row, mass, down_to(mass.floor(least)), limit);
            }
        }
        let total = is_open.then(|| self.ledger.total().0);
        self.survey.take(row);
        self.long_nucleus(row, mass, p, order::end(row.tokens()), total)
    }

    /// Finds the nucleus of the tokens up to `last` in a row that has been surveyed. `total` is approximately the mass of the
    /// row, if that is known.
    #[inline(always)]
    fn long_nucleus<I: Vector, T: Logit>(
        &mut self,
        row: &Row<'_, I, T>,
        mass: Mass,
        p: f64,
        last: u64,
        total: Option<u64>,
    ) -> Result<Kept, RowError> {
        let after = self.survey.weigh(mass, last);
        let (mut estimate, mut deviation) = match total {
            Some(total) => (total as f64 - after, 0.0),
            None => self.survey.total(row, mass, last),
        };
        if deviation > UNSURE * estimate {
            self.ledger.open(row, mass);
            (estimate, deviation) = (self.ledger.total().0 as f64 - after, 0.0);
        }
        self.survey.seek_mass((1.0 - p) * estimate, (1.0 - p) * deviation);
        let mut is_exact = false;
        loop {
            let (near, far) = self.survey.between(last);
            let total = self.blocks.weigh(row, mass, [near, far, last], &mut self.keys);
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
    pub fn draw<I: Vector, T: Logit>(
        &mut self,
        row: &Row<'_, I, T>,
        mass: Mass,
        kept: Kept,
        word: u64,
    ) -> Result<usize, RowError> {
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
                    self.blocks.weigh(row, mass, [last; 3], &mut self.keys);
                    self.masses.clear();
                }
                let total = self.blocks.total() + self.listed(last).map(|(_, mass)| mass).sum::<u64>();
                self.blocks.find(row, mass, last, draw::target(word, total), self.listed(last))
            }
        };
        drawn.ok_or(RowError::Changed)
    }

    /// Returns the token that the word draws from the whole row.
    #[inline(always)]
    pub fn draw_from_all<I: Vector, T: Logit>(
        &mut self,
        row: &Row<'_, I, T>,
        mass: Mass,
        word: u64,
    ) -> Result<usize, RowError> {
        self.ledger.open(row, mass);
        loop {
            if let Some(id) = draw::from_row(row, mass, &self.ledger, word) {
                return Ok(id);
            }
            self.ledger.refine(row, mass)?;
        }
    }

    /// Returns the mass of the whole row.
    #[inline(always)]
    pub fn total<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, mass: Mass) -> u64 {
        self.ledger.exact_total(row, mass)
    }

    /// Returns the keys of the tokens that survive, and their masses, in the total order. Banned tokens are never among them.
    #[inline(always)]
    pub fn survivors<I: Vector, T: Logit>(
        &mut self,
        row: &Row<'_, I, T>,
        mass: Mass,
        kept: Option<Kept>,
    ) -> (&[u64], &[u64]) {
        let last = kept.map_or(u64::MAX, |kept| kept.last()).min(down_to(f32::MIN));
        candidates::collect(row, Prefix::to(last), usize::MAX, &mut self.keys);
        self.keys.sort_unstable();
        self.weigh(mass);
        (&self.keys, &self.masses)
    }

    /// Returns the keys of the k largest logits, in the total order. Banned tokens come last, as in any sort.
    #[inline(always)]
    pub fn top_k<I: Vector, T: Logit>(&mut self, row: &Row<'_, I, T>, k: usize) -> Result<&[u64], RowError> {
        let is_short = k <= most_listed(row.tokens());
        if is_short {
            self.list_top_k(row, k)?;
        }
        if !is_short || self.keys.len() < k {
            let last = if k < row.tokens() { self.last_of_top_k(row, k)? } else { order::end(row.tokens()) };
            candidates::collect(row, Prefix::to(last), k, &mut self.keys);
        }
        if self.keys.len() < k {
            return Err(RowError::Changed);
        }
        self.keys.sort_unstable();
        Ok(&self.keys)
    }
}
