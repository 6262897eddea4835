//! Finds the tokens whose surprise is nearest to a center, from the nearest on until they have the mass that is needed.
//!
//! Where these are few, they are found in a list of the heaviest tokens. Otherwise a sample suggests two distances, and a pass
//! over the row weighs what is nearer than the first and lists what lies between the two, as for a nucleus (`passes.rs`).
//!
//! The surprise never increases with the logit. So the tokens within a distance are a prefix of the total order without its
//! first tokens, those that surprise too little. Most often these are few or none.

use super::passes::Weighed;
use super::{FIRST_SHARE, HEAVY, Kept, LIGHTER, MUCH_LIGHTER, Search, most_listed};
use crate::error::RowError;
use crate::kernels::beside;
use crate::kernels::mass::{Mass, S};
use crate::kernels::order::{self, down_to};
use crate::kernels::survey::{Known, MOST_KNOWN};
use crate::kernels::{top_k, top_p};
use crate::lanes::BLOCK;
use crate::row::Row;

/// The tokens that are as heavy as the heaviest tokens of so many blocks are not sampled, but listed.
const HEAVY_BLOCKS: usize = 1024;

/// Which tokens are nearest to a center.
pub(super) enum Nearest {
    /// The listed tokens within this distance.
    Listed { farthest: u32 },
    /// A prefix without the tokens in [`Search::dropped`], and the mass of the first token that is left.
    Long { kept: Kept, first: u64 },
}

impl Search {
    /// Finds the tokens up to `last` whose surprise is nearest to `center`, up to the smallest distance at which they have the
    /// mass that is needed. `total` is the mass of all tokens up to `last`.
    pub(super) fn nearest<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        center: u32,
        [need, total]: [u64; 2],
        last: u64,
    ) -> Result<Nearest, RowError> {
        let limit = most_listed(row.tokens());
        let (mut least, mut most) = (HEAVY, limit / FIRST_SHARE);
        loop {
            let floor = if least == 0 { f32::MIN } else { mass.floor(least) };
            let lightest = down_to(floor);
            if !self.list.fill(row, mass, lightest.min(last), most) {
                return self.nearest_by_passes(row, mass, center, [need, total], last);
            }
            let found = self.list.distance_reaching::<R::Isa>(mass, center, need);
            // A token that is not listed has a surprise of at least that of the floor.
            let is_complete = lightest >= last || least == 0;
            if is_complete || found.is_some_and(|found| center.saturating_add(found) < mass.surprise(floor)) {
                return Ok(Nearest::Listed { farthest: found.ok_or(RowError::Changed)? });
            }
            most = limit;
            if least == HEAVY {
                let (guess, tokens) = top_p::guess_least_mass(row, mass, need, total, &mut self.work_floats);
                least = guess.min(HEAVY >> LIGHTER);
                if tokens > limit {
                    most = 0; // a list would be too long
                }
            } else {
                least >>= MUCH_LIGHTER;
            }
        }
    }

    fn nearest_by_passes<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        center: u32,
        [need, total]: [u64; 2],
        last: u64,
    ) -> Result<Nearest, RowError> {
        let up_to = |surprise: u32| last.min(down_to(mass.logit_of_surprise(surprise)));
        let distance = |key| mass.surprise(order::logit(key)).abs_diff(center);
        let last_known = self.drop_heaviest(row, mass, last);
        let known = Known { keys: self.dropped.keys(), last: last_known, mass: self.dropped.total() };
        self.passes.survey_distances(row, mass, known, last, distance, [need, total]);
        loop {
            // What is nearer than `near` is weighed, and what is not farther than `far` is listed.
            let (near, far, is_all) = self.passes.distances();
            let first_near = (center + 1).checked_sub(near.max(1)); // tokens that surprise less than this are not weighed
            let too_likely = first_near.filter(|&first| first > 0).map_or(order::START, |first| up_to(first - 1));
            self.dropped.fill(row, mass, too_likely, usize::MAX);
            let near_key = (center + near).checked_sub(1).map_or(order::START, up_to);
            let far_key = up_to(center.saturating_add(far));
            // All tokens at one distance stay or go together, and need no list.
            let keys = if near < far { [near_key, far_key, order::START] } else { [near_key, near_key, far_key] };
            let up_to_far = self.passes.weigh_between(row, mass, keys);
            let before = self.passes.weight_of_near::<R::Isa>().saturating_sub(self.dropped.total());
            let farthest = if near < far {
                let ring = self.dropped.up_to(u64::MAX).filter(|&(key, _)| distance(key) <= far);
                self.list.fill_with(self.passes.listed().up_to(u64::MAX).chain(ring));
                let reaches = |need| self.list.distance_reaching::<R::Isa>(mass, center, need);
                need.checked_sub(before).filter(|&need| need > 0).and_then(reaches)
            } else {
                self.dropped.retain(|key| distance(key) > far);
                (before < need && need <= up_to_far.saturating_sub(self.dropped.total())).then_some(far)
            };
            if let Some(farthest) = farthest {
                self.dropped.retain(|key| distance(key) > farthest);
                let last = up_to(center.saturating_add(farthest));
                let weighed = (near < far).then_some(Weighed { last, near: near_key });
                if self.dropped.keys().is_empty() {
                    return Ok(Nearest::Long { kept: Kept::Long { last, weighed }, first: 1 << S });
                }
                let weighed = self.passes.weigh(row, mass, last, weighed);
                let first_left = center.saturating_sub(farthest); // the least surprise that is left
                let too_high = mass.logit_of_surprise(first_left.saturating_sub(1));
                let first = mass.of(beside::largest_below(row, too_high)).min(1 << S); // above only if the row changes
                return Ok(Nearest::Long { kept: Kept::Without { last, weighed: Some(weighed) }, first });
            }
            if is_all {
                return Err(RowError::Changed); // the distances covered all tokens, which have the mass that is needed
            }
        }
    }

    /// Lists the heaviest tokens up to `last` in [`Search::dropped`], as they may be too few to be sampled. Returns a key that
    /// comes after them and before all others.
    fn drop_heaviest<R: Row>(&mut self, row: &R, mass: Mass, last: u64) -> u64 {
        for blocks in [HEAVY_BLOCKS, HEAVY_BLOCKS / BLOCK] {
            // So many blocks have a token that is as heavy, and most often few of these have many.
            let lightest = last.min(down_to(top_k::floor(row, blocks, &mut self.work_floats)));
            if self.dropped.fill(row, mass, lightest, MOST_KNOWN) {
                return lightest;
            }
        }
        self.dropped.clear();
        order::START
    }
}
