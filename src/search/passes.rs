//! The last rung of the search: passes over the row, for tokens that are too many to list.
//!
//! A sample of the row suggests two keys between which the last token that survives probably lies. A pass measures what comes
//! before the two keys and lists what lies between them. If the last token is not there, the keys of the next pass are farther
//! apart, and in the end they cover the row.

use super::list::List;
use crate::error::RowError;
use crate::isa::Vector;
use crate::kernels::draw::{self, Drawn};
use crate::kernels::ledger::Ledger;
use crate::kernels::mass::Mass;
use crate::kernels::order::{self, Prefix};
use crate::kernels::prefix::{self, Blocks};
use crate::kernels::survey::{Known, Survey};
use crate::kernels::top_p::Share;
use crate::lanes::BLOCK;
use crate::row::Row;

/// If the standard deviation of an estimate is a larger share of it than this, a better estimate is needed.
const UNSURE: f64 = 0.25;
/// The better estimate leaves one part in 2**OPEN_TO_WEIGH of the mass unknown.
const OPEN_TO_WEIGH: u32 = 9;

/// A sample of the row, and what a pass measured.
#[derive(Debug, Default)]
pub(super) struct Passes {
    survey: Survey,
    /// True while the sample is of this row, and is whole.
    is_surveyed: bool,
    /// The mass of each block, of its tokens up to the first key.
    blocks: Blocks,
    /// The tokens between the two keys.
    between: List,
}

/// The end of a nucleus that passes have found. The masses of the tokens up to `near` are those of the last pass, and the
/// tokens after it are listed.
#[derive(Clone, Copy)]
pub(crate) struct Weighed {
    pub last: u64,
    pub near: u64,
}

impl Passes {
    /// Reserves memory for a row with this many tokens.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        self.survey.reserve(tokens)?;
        self.blocks.reserve(tokens.div_ceil(BLOCK))?;
        self.between.reserve(tokens)
    }

    /// Forgets the row before.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.is_surveyed = false;
    }

    /// Samples the row, unless that was done already.
    fn survey<R: Row>(&mut self, row: &R) {
        if !self.is_surveyed {
            self.survey.take(row);
            self.is_surveyed = true;
        }
    }

    /// Returns the key of the last of the k largest tokens, banned tokens included. k < row.tokens()
    pub fn last_of_top_k<R: Row>(&mut self, row: &R, k: usize) -> Result<u64, RowError> {
        self.survey(row);
        self.survey.seek_count(row.tokens() - k);
        let end = order::end(row.tokens());
        loop {
            let (near, far) = self.survey.between(end);
            let count = prefix::count(row, Prefix::to(near), Prefix::to(far), self.between.keys_to_fill());
            if count < k && k - count <= self.between.keys().len() {
                return Ok(self.between.last_of_first::<R::Isa>(k - count));
            }
            if (near, far) == (order::START, end) {
                return Err(RowError::Changed); // the keys covered the whole row, which has more than k tokens
            }
        }
    }

    /// Finds the nucleus of the tokens up to `last`. `total` is approximately the mass of the row, if that is known; otherwise
    /// the ledger may be used to find it.
    pub fn nucleus<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        share: Share,
        last: u64,
        total: Option<u64>,
        ledger: &mut Ledger,
    ) -> Result<Weighed, RowError> {
        self.survey(row);
        let after = self.survey.weigh::<R::Isa>(mass, last);
        self.is_surveyed = false; // only the sampled tokens up to `last` are left
        let (mut estimate, mut deviation) = match total {
            Some(total) => (total as f64 - after, 0.0),
            None => self.survey.total(row, mass, last),
        };
        if deviation > UNSURE * estimate {
            ledger.open(row, mass, OPEN_TO_WEIGH);
            (estimate, deviation) = (ledger.total().0 as f64 - after, 0.0);
        }
        let left_out = 1.0 - share.p;
        self.survey.seek_mass(left_out * estimate, left_out * deviation);
        let mut is_exact = false;
        loop {
            let (near, far) = self.survey.between(last);
            let total = self.blocks.weigh(row, mass, [near, far, last], self.between.keys_to_fill());
            self.between.weigh::<R::Isa>(mass);
            let (need, before) = (share.need(total), self.blocks.total::<R::Isa>());
            if before < need && need - before <= self.between.total() {
                let need = need - before;
                let last = self.between.last_reaching::<R::Isa>((need, need)).ok_or(RowError::Changed)?;
                return Ok(Weighed { last, near });
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

    /// Samples the tokens up to `last` by a distance, of which the farthest are to be left out and those with the mass
    /// `need` kept; all of them have the mass `total`.
    pub fn survey_distances<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        known: Known<'_>,
        last: u64,
        distance: impl Fn(u64) -> u32,
        [need, total]: [u64; 2],
    ) {
        self.survey(row);
        self.survey.turn(row, mass, known, last, distance, total);
        self.is_surveyed = false; // it is in another order now
        self.survey.seek_distance(total.saturating_sub(need));
    }

    /// Returns two distances between which, both included, the last token probably lies, and whether they cover all tokens.
    pub fn distances(&mut self) -> (u32, u32, bool) {
        let (near, far) = self.survey.between(u64::MAX);
        ((near >> 32) as u32, (far >> 32) as u32, (near, far) == (order::START, u64::MAX))
    }

    /// Weighs the tokens up to the first key, lists those after it and up to the second, and returns the mass of those up to the
    /// third, if that is not `START`.
    pub fn weigh_between<R: Row>(&mut self, row: &R, mass: Mass, keys: [u64; 3]) -> u64 {
        let total = self.blocks.weigh(row, mass, keys, self.between.keys_to_fill());
        self.between.weigh::<R::Isa>(mass);
        total
    }

    /// Returns the mass of the tokens up to the first key of the last pass.
    pub fn weight_of_near<I: Vector>(&self) -> u64 {
        self.blocks.total::<I>()
    }

    /// Returns the tokens that the last pass listed.
    pub fn listed(&self) -> &List {
        &self.between
    }

    /// Weighs the tokens up to `last`, unless they have been weighed already.
    pub fn weigh<R: Row>(&mut self, row: &R, mass: Mass, last: u64, weighed: Option<Weighed>) -> Weighed {
        if let Some(weighed) = weighed {
            return weighed;
        }
        self.blocks.weigh(row, mass, [last; 3], self.between.keys_to_fill());
        Weighed { last, near: last }
    }

    /// Returns the mass of the tokens up to `last` in what was weighed.
    #[inline(always)]
    pub fn total<I: Vector>(&self, weighed: Weighed) -> u64 {
        self.blocks.total::<I>() + self.between.total_up_to::<I>(weighed.last)
    }

    /// Returns the token that the word draws from those up to `last` in what was weighed, without those that were dropped, or
    /// None if they have no mass.
    pub fn draw<R: Row>(
        &self,
        row: &R,
        mass: Mass,
        weighed: Weighed,
        word: u64,
        dropped: Option<&List>,
    ) -> Option<Drawn> {
        let without = dropped.map_or(0, List::total);
        let total = self.total::<R::Isa>(weighed).saturating_sub(without);
        self.find(row, mass, weighed, [draw::target(word, total), total], dropped)
    }

    /// Returns the token at which the running mass of those tokens exceeds a target, or None if even their total does not.
    #[inline(always)]
    pub fn find<R: Row>(
        &self,
        row: &R,
        mass: Mass,
        weighed: Weighed,
        [target, total]: [u64; 2],
        dropped: Option<&List>,
    ) -> Option<Drawn> {
        let rest = self.between.up_to(weighed.last);
        let dropped = dropped.into_iter().flat_map(|dropped| dropped.up_to(u64::MAX));
        let hit = self.blocks.find(row, mass, weighed.last, target, rest, dropped)?;
        Some(Drawn::new(hit.place, total, target - hit.into, hit.mass))
    }
}
