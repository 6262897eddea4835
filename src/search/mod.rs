//! Finds which tokens of a row survive the filters, and draws one of them. The filters themselves are in `methods/`.
//!
//! Most filters keep a prefix of the total order (`kernels/order.rs`), so that one key, that of the last token, says which
//! tokens survive. The search looks for that key on a ladder of three rungs, each of which is certain of what it answers:
//!
//! 1. a list of the tokens that may survive (`list.rs`), where they are few;
//! 2. certified bounds of the mass of the row (`kernels/ledger.rs`), where that list must be compared with the whole row;
//! 3. passes over the row between two keys of a sample (`passes.rs`), where a list would be long.
//!
//! A filter that does not keep a prefix leaves a list of exactly the tokens that it keeps, however long the list is.

mod describe;
mod list;
mod nearest;
mod passes;
mod several;

use self::list::List;
use self::nearest::Nearest;
use self::passes::{Passes, Weighed};
use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::kernels::draw::{self, Drawn};
use crate::kernels::ledger::Ledger;
use crate::kernels::mass::{Mass, S};
use crate::kernels::order::{self, Prefix, down_to};
use crate::kernels::spread::{self, Spread};
use crate::kernels::surprise::{self, Moments};
use crate::kernels::top_p::Share;
use crate::kernels::{adaptive, prefix, tail, top_k, top_p, without};
use crate::lanes::BLOCK;
use crate::logit::Logit;
use crate::row::Row;

/// The memory of a search, which is reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Search {
    list: List,
    ledger: Ledger,
    passes: Passes,
    /// The tokens that a filter dropped from a prefix that is too long for a list.
    dropped: List,
    /// The mass that the listed tokens had together before a method gave them others, which they keep.
    before: Option<u64>,
    /// The center of these others, while they are too many to be listed, and have not been given.
    center: Option<f64>,
    reweighed: adaptive::Blocks,
    work_floats: Vec<f32>,
}

/// The tokens that survive the filters.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    /// The tokens of the list whose keys are at most `last`.
    Listed { last: u64 },
    /// All tokens up to the key `last`, which are too many for a list. If a nucleus ends them, they have been weighed.
    Long { last: u64, weighed: Option<Weighed> },
    /// The same without the tokens in [`Search::dropped`]. If nothing has been weighed, these are a few tokens of the whole row,
    /// whose ledger is open.
    Without { last: u64, weighed: Option<Weighed> },
}

impl Kept {
    /// Narrows the kept set to the tokens up to `limit`.
    fn up_to(self, limit: u64) -> Kept {
        match self {
            Kept::Listed { last } => Kept::Listed { last: last.min(limit) },
            Kept::Long { last, weighed } => {
                let last = last.min(limit);
                let weighed = weighed.filter(|weighed| weighed.near <= last);
                Kept::Long { last, weighed: weighed.map(|weighed| Weighed { last, ..weighed }) }
            }
            Kept::Without { .. } => self, // which a filter lists before it narrows it
        }
    }
}

/// Returns a key that comes after the tokens up to `last` that are not banned.
#[inline(always)]
fn not_banned_key(last: u64) -> u64 {
    last.min(down_to(f32::MIN))
}

/// Returns the key of the last token of what is kept, where that is a prefix.
fn last_of<R: Row>(row: &R, kept: Option<Kept>) -> u64 {
    match kept {
        Some(Kept::Listed { last } | Kept::Long { last, .. } | Kept::Without { last, .. }) => last,
        None => order::end(row.tokens()),
    }
}

/// Returns the smaller and the larger value of a function that is monotone between two bounds.
#[inline(always)]
fn at_both_ends(function: impl Fn(u64) -> u64, (low, high): (u64, u64)) -> (u64, u64) {
    let (one, other) = (function(low), function(high));
    (one.min(other), one.max(other))
}

/// A list of a sixteenth of the row, or of this many tokens, takes as long as the passes that do without one.
const SHORT: usize = 1024;
const SHORT_SHARE: usize = 16;

/// Returns the length of the longest list worth making where passes would do, too.
fn most_listed(tokens: usize) -> usize {
    (tokens / SHORT_SHARE).max(SHORT)
}

/// A small nucleus has no lighter tokens than this, so these are listed first.
const HEAVY: u64 = 1 << (S - 6);
/// That first list is a guess without any knowledge of the row: it may take this share of the longest list.
const FIRST_SHARE: usize = 4;
/// Where the heavy tokens were too few, the lightest of the next list are lighter by at least this power of two, because
/// another list costs another pass.
const LIGHTER: u32 = 3;
/// The same, once the row has been sampled and that was not enough.
const MUCH_LIGHTER: u32 = 4;

/// The part of a row's mass, as a negative power of two, that may stay unknown at first: where the mass is only compared (by a
/// draw, and by a filter with a threshold), and where a sum must reach a share of it (in a nucleus). A smaller part makes the
/// first look take longer, and a second look less likely.
const OPEN_TO_COMPARE: u32 = 4;
const OPEN_TO_SUM: u32 = 9;

/// A row while filters are applied to it: which tokens have been kept so far. It is all that a filter sees.
pub(crate) struct State<'a, R> {
    row: R,
    mass: Mass,
    search: &'a mut Search,
    /// None while every token is kept.
    kept: Option<Kept>,
    /// True if the list, where there is one, holds the kept tokens and no others.
    is_exact: bool,
    /// The mass of the first token that is kept.
    first: u64,
    /// How many of the tokens that were kept before a step it keeps in any case.
    fewest: usize,
    /// The last of these tokens, for a step that keeps a prefix.
    last_of_fewest: u64,
    /// True if the tokens that were kept before the step are in the list.
    was_listed: bool,
}

impl<'a, R: Row> State<'a, R> {
    /// Begins with all tokens, at a temperature that is not 0.
    #[inline(always)]
    pub fn all(row: R, temperature: f64, search: &'a mut Search) -> Self {
        search.passes.begin();
        (search.before, search.center) = (None, None);
        let mass = Mass::new(row.maximum(), temperature);
        let first = 1 << S;
        let (fewest, last_of_fewest, was_listed) = (1, order::START, false);
        State { row, mass, search, kept: None, is_exact: true, first, fewest, last_of_fewest, was_listed }
    }

    /// Makes each step that follows keep at least `fewest` tokens, or all if there are no more.
    pub fn keep_in_any_case(&mut self, fewest: usize) {
        self.fewest = fewest.max(1);
    }

    /// Finds the tokens that the next step keeps in any case.
    pub fn begin_step(&mut self) -> Result<(), RowError> {
        if self.fewest == 1 {
            return Ok(()); // every step keeps at least one token
        }
        self.narrow_list();
        let (tokens, end) = (self.row.tokens(), order::end(self.row.tokens()));
        self.last_of_fewest = match self.kept {
            Some(Kept::Listed { .. } | Kept::Without { .. }) => self.search.list.last_of_first::<R::Isa>(self.fewest),
            _ if self.fewest >= tokens => end,
            _ if self.fewest <= most_listed(tokens) => self.search.list_top_k(&self.row, self.fewest)?,
            _ => self.search.passes.last_of_top_k(&self.row, self.fewest)?,
        };
        if let Some(Kept::Long { last, .. }) = self.kept {
            self.last_of_fewest = self.last_of_fewest.min(last);
            self.kept = Some(Kept::Long { last, weighed: None }); // the passes may have measured something else since
        }
        self.was_listed = matches!(self.kept, Some(Kept::Listed { .. }));
        Ok(())
    }

    /// Takes these tokens back, if a step that keeps a prefix dropped some of them.
    pub fn end_step(&mut self) {
        let least = self.last_of_fewest.min(order::end(self.row.tokens()));
        if self.fewest == 1 {
            return;
        }
        match self.kept {
            Some(Kept::Long { last, .. }) if last < least => {
                self.kept = Some(Kept::Long { last: least, weighed: None })
            }
            Some(Kept::Listed { last }) if last < least => {
                if !self.was_listed {
                    self.search.list.fill(&self.row, self.mass, not_banned_key(least), usize::MAX);
                }
                self.is_exact = false;
                self.kept = Some(Kept::Listed { last: least });
            }
            _ => (),
        }
    }

    /// Returns which tokens are kept, or None if all are, and what their masses are.
    #[inline(always)]
    pub fn kept(self) -> (Mass, Option<Kept>) {
        (self.mass, self.kept)
    }

    /// Gives the kept tokens the masses that they have at another temperature, relative to the first of them.
    pub fn set_temperature(&mut self, temperature: f64) -> Result<(), RowError> {
        self.narrow_list();
        let mut maximum = self.row.maximum();
        match &mut self.kept {
            None => (),
            Some(Kept::Long { weighed, .. }) => *weighed = None,
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                let first = self.search.list.keys().iter().min().ok_or(RowError::Changed)?;
                maximum = order::logit(*first);
            }
        }
        self.mass = Mass::new(maximum, temperature);
        if let Some(Kept::Listed { .. }) = self.kept {
            self.search.list.weigh::<R::Isa>(self.mass);
        }
        self.first = 1 << S;
        Ok(())
    }

    /// Makes the list, where there is one, hold the kept tokens and no others. Where tokens were dropped from a long prefix,
    /// there is a list afterwards.
    #[inline(always)]
    fn narrow_list(&mut self) {
        match self.kept {
            Some(Kept::Listed { last }) if !self.is_exact => self.search.list.retain(|key| key <= last),
            Some(Kept::Without { .. }) => self.list_without(),
            _ => (),
        }
        self.is_exact = true;
    }

    /// Lists what is left of a long prefix from which tokens were dropped.
    fn list_without(&mut self) {
        if let Some(Kept::Without { last, .. }) = self.kept {
            self.search.list_without(&self.row, last);
            self.search.list.weigh::<R::Isa>(self.mass);
            self.kept = Some(Kept::Listed { last });
        }
    }

    /// Lists the kept tokens, however many there are.
    fn list_kept(&mut self) {
        let last = match self.kept {
            None => order::end(self.row.tokens()),
            Some(Kept::Long { last, .. }) => last,
            Some(Kept::Listed { .. } | Kept::Without { .. }) => return,
        };
        self.search.list.fill(&self.row, self.mass, not_banned_key(last), usize::MAX);
        self.kept = Some(Kept::Listed { last });
    }

    /// Keeps the first `count` tokens of what was kept, and if `with_ties`, all tokens whose logit equals that of the last
    /// one.
    #[inline(always)]
    pub fn keep_first(&mut self, count: usize, with_ties: bool) -> Result<(), RowError> {
        self.narrow_list();
        let end = order::end(self.row.tokens());
        let limit = match self.kept {
            None => end,
            Some(Kept::Long { last, .. }) => last,
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                let last = self.search.list.last_of_first::<R::Isa>(count).min(end);
                self.kept = Some(Kept::Listed { last: if with_ties { down_to(order::logit(last)) } else { last } });
                self.is_exact = false;
                return Ok(());
            }
        };
        if count >= self.row.tokens() {
            return Ok(());
        }
        let most = most_listed(self.row.tokens());
        let mut is_listed = count <= most;
        let mut last = if is_listed {
            self.search.list_top_k(&self.row, count)?.min(end)
        } else {
            self.search.passes.last_of_top_k(&self.row, count)?
        };
        if with_ties {
            last = down_to(order::logit(last));
            is_listed = is_listed && self.search.list.collect(&self.row, Prefix::not_banned(last), most);
        }
        let last = last.min(limit);
        self.kept = Some(if is_listed {
            self.search.list.weigh::<R::Isa>(self.mass);
            self.is_exact = limit == end;
            Kept::Listed { last }
        } else {
            Kept::Long { last, weighed: None }
        });
        Ok(())
    }

    /// Keeps the first tokens of the total order that together have at least a share of the mass of what was kept.
    #[inline(always)]
    pub fn keep_share(&mut self, share: Share) -> Result<(), RowError> {
        self.narrow_list();
        if self.kept.is_none() && self.row.tokens() <= BLOCK {
            self.list_kept(); // the list of a block takes less time than its bounds
        }
        self.kept = Some(match self.kept {
            None => self.search.nucleus(&self.row, self.mass, share)?,
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                let need = share.need(self.search.list.total());
                Kept::Listed { last: self.search.list.last_reaching::<R::Isa>((need, need)).ok_or(RowError::Changed)? }
            }
            Some(Kept::Long { last, .. }) => self.search.long_nucleus(&self.row, self.mass, share, last, None)?,
        });
        self.is_exact = false;
        Ok(())
    }

    /// Keeps the tokens that have at least the share `p` of the mass of the first token that was kept. `p` is not 0.
    pub fn keep_share_of_first(&mut self, p: f64) {
        self.keep_from(self.mass.least_logit((p * self.first as f64).ceil() as u64));
    }

    /// Keeps the tokens with a logit of at least `floor`, which the first token that was kept must reach.
    pub fn keep_from(&mut self, floor: f32) {
        self.list_without();
        self.is_exact = false;
        let last = down_to(floor);
        self.kept = Some(match self.kept.take() {
            Some(kept) => kept.up_to(last),
            None if self.search.list.fill(&self.row, self.mass, last, most_listed(self.row.tokens())) => {
                Kept::Listed { last }
            }
            None => Kept::Long { last, weighed: None },
        });
    }

    /// Keeps the tokens that have at least this mass. Tokens as heavy as the first one stay in any case.
    pub fn keep_heavier(&mut self, least: f64) {
        self.keep_from(self.mass.least_logit((least.ceil() as u64).min(self.first).max(1)));
    }

    /// Keeps the tokens up to `last`, which is the key of a token that was kept. Comes after `first_of_kept`.
    pub fn keep_up_to(&mut self, last: u64) {
        self.kept = Some(Kept::Listed { last });
    }

    /// Drops all tokens but the first `count`, and returns the keys of these, in the total order, and their masses.
    pub fn first_of_kept(&mut self, count: usize) -> Result<(&[u64], &[u64]), RowError> {
        self.narrow_list();
        let mut last = match self.kept {
            Some(Kept::Long { last, .. }) => last,
            _ => order::end(self.row.tokens()),
        };
        self.is_exact = false;
        if let Some(Kept::Listed { .. }) = self.kept {
            last = last.min(self.search.list.last_of_first::<R::Isa>(count));
        } else {
            last = last.min(self.search.list_top_k(&self.row, count)?);
            self.search.list.weigh::<R::Isa>(self.mass);
        }
        self.kept = Some(Kept::Listed { last });
        let (keys, masses, _) = self.search.list.heaviest::<R::Isa>(self.mass, last, 0);
        Ok((keys, masses))
    }

    /// Keeps the tokens before the tail: see `kernels/tail.rs`.
    pub fn keep_before_tail(&mut self, z: f64) -> Result<(), RowError> {
        self.narrow_list();
        let last = match self.kept {
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                self.search.before_tail_of_list::<R>(self.mass, z, order::end(self.row.tokens()))
            }
            Some(Kept::Long { last, .. }) => self.search.before_tail(&self.row, self.mass, z, last),
            None => self.search.before_tail(&self.row, self.mass, z, order::end(self.row.tokens())),
        };
        self.is_exact = false;
        if let Some(last) = last {
            self.kept = Some(Kept::Listed { last });
        }
        Ok(())
    }

    /// Returns the masses of the row's tokens.
    pub fn mass(&self) -> Mass {
        self.mass
    }

    /// Keeps the tokens that have at least the mass that `least` gives for two masses: that of the first token that was kept,
    /// and that of all tokens that were kept. The result must never decrease, or never increase, with the second mass. Tokens
    /// as heavy as the first one stay in any case.
    pub fn keep_at_least(&mut self, least: &dyn Fn(f64, f64) -> f64) -> Result<(), RowError> {
        self.list_without();
        self.is_exact = false;
        let first = self.first;
        let least = |total: u64| (least(first as f64, total as f64).ceil() as u64).min(first).max(1);
        self.kept = Some(match self.kept {
            None => self.search.heavy(&self.row, self.mass, &least)?,
            Some(kept) => {
                let (kept, total) = self.search.weigh(&self.row, self.mass, kept);
                kept.up_to(down_to(self.mass.least_logit(least(total))))
            }
        });
        Ok(())
    }

    /// Fills `surprises` with those of the first tokens that are kept, in the total order, and returns how many these are.
    #[inline(never)]
    pub fn first_surprises<const N: usize>(&mut self, surprises: &mut [u32; N]) -> Result<usize, RowError> {
        self.narrow_list();
        let is_listed = matches!(self.kept, Some(Kept::Listed { .. } | Kept::Without { .. }));
        let last = if is_listed {
            self.search.list.last_of_first::<R::Isa>(N)
        } else if self.row.tokens() <= N {
            self.search.list.collect(&self.row, Prefix::not_banned(u64::MAX), N);
            u64::MAX
        } else {
            self.search.list_top_k(&self.row, N)?
        };
        let last = match &mut self.kept {
            Some(Kept::Long { last: limit, weighed }) => {
                *weighed = None; // the passes may have looked for other tokens since
                last.min(*limit)
            }
            _ => last,
        };
        let (mut first, mut count) = ([0; N], 0);
        for (place, &key) in first.iter_mut().zip(self.search.list.keys().iter().filter(|&&key| key <= last)) {
            *place = key;
            count += 1;
        }
        first[..count].sort_unstable();
        for (surprise, &key) in surprises.iter_mut().zip(&first[..count]) {
            *surprise = self.mass.surprise(order::logit(key));
        }
        Ok(count)
    }

    /// Returns the number of tokens of the row, whether they are kept or not.
    pub fn tokens(&self) -> usize {
        self.row.tokens()
    }

    /// Returns the mass of the tokens that are kept, and the sum of their surprises. If `counts`, they are counted, too.
    pub fn moments(&mut self, counts: bool) -> Moments {
        self.narrow_list();
        match self.kept {
            None => surprise::of_row(&self.row, self.mass, order::end(self.row.tokens()), counts),
            Some(Kept::Long { last, .. }) => surprise::of_row(&self.row, self.mass, last, counts),
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                R::Isa::run(|| surprise::of_tokens(self.search.list.up_to(u64::MAX), self.mass))
            }
        }
    }

    /// Returns the largest logit that is kept, and how far the others spread.
    pub fn spread(&mut self) -> (f32, Spread) {
        self.narrow_list();
        let first = self.row.maximum();
        match self.kept {
            None => (first, spread::of_row(&self.row, first, order::end(self.row.tokens()))),
            Some(Kept::Long { last, .. }) => (first, spread::of_row(&self.row, first, last)),
            Some(Kept::Listed { .. } | Kept::Without { .. }) => {
                let keys = || self.search.list.keys().iter().copied();
                let first = order::logit(keys().min().unwrap_or(order::end(self.row.tokens())));
                (first, spread::of_tokens(keys(), first))
            }
        }
    }

    /// Keeps the tokens whose surprise is nearest to `center`, up to the smallest distance at which they have the mass that is
    /// needed. All tokens at that distance are kept. `total` is the mass of what was kept.
    pub fn keep_nearest(&mut self, center: u32, need: u64, total: u64) -> Result<(), RowError> {
        let mass = self.mass;
        let distance = |key| mass.surprise(order::logit(key)).abs_diff(center);
        self.narrow_list();
        if self.fewest > 1 {
            self.list_kept();
        }
        let last = match self.kept {
            None => Some(order::end(self.row.tokens())),
            Some(Kept::Long { last, .. }) => Some(last),
            Some(Kept::Listed { .. } | Kept::Without { .. }) => None,
        };
        let mut farthest = match last {
            None => self.search.list.distance_reaching::<R::Isa>(mass, center, need).ok_or(RowError::Changed)?,
            Some(last) => match self.search.nearest(&self.row, mass, center, [need, total], last)? {
                Nearest::Listed { farthest } => farthest,
                Nearest::Long { kept, first } => {
                    (self.kept, self.first) = (Some(kept), first);
                    return Ok(());
                }
            },
        };
        if self.fewest > 1 {
            let nearest = self.search.list.distance_of_nearest(mass, center, self.fewest);
            farthest = farthest.max(nearest.ok_or(RowError::Changed)?);
        }
        self.search.list.retain(|key| distance(key) <= farthest);
        // Only a row that changes has a token above its maximum, for which `least_logit` has no answer.
        self.first = self.search.list.masses().iter().copied().max().unwrap_or(0).min(1 << S);
        self.kept = Some(Kept::Listed { last: order::end(self.row.tokens()) });
        Ok(())
    }

    /// Gives the kept tokens the masses of adaptive-p around a center. No method may come after this one.
    pub fn reweigh(&mut self, center: f64) -> Result<(), RowError> {
        self.narrow_list();
        let total = self.search.total_of(&self.row, self.mass, self.kept);
        if total == 0 {
            return Err(RowError::Changed); // the tokens that are kept have a mass
        }
        (self.search.before, self.search.center) = (Some(total), Some(center));
        if let Some(Kept::Listed { .. }) = self.kept {
            self.kept = self.search.reweigh_listed(&self.row, self.mass, self.kept);
        }
        Ok(())
    }

    /// Drops all tokens with at least the share `p` of the mass of what was kept, but not the last one of them. If one of them
    /// is exempt, nothing is dropped.
    pub fn drop_before_last_of(&mut self, p: f64, exempt: &[u32]) -> Result<(), RowError> {
        self.narrow_list();
        if self.kept.is_none()
            && let Some(least) = self.search.list_share(&self.row, self.mass, p)?
        {
            let Search { list, dropped, .. } = &mut *self.search;
            let heavy = || list.up_to(u64::MAX).filter(|&(_, mass)| mass >= least);
            if heavy().count() < 2 {
                return Ok(());
            }
            if self.fewest == 1 {
                let stays = heavy().map(|(key, _)| key).max().unwrap_or(order::START);
                dropped.fill_with(heavy().filter(|&(key, _)| key < stays));
                if !dropped.has_any_before(stays, exempt) {
                    self.kept = Some(Kept::Without { last: order::end(self.row.tokens()), weighed: None });
                    self.first = self.mass.of(order::logit(stays)).min(1 << S); // above only if the row changes
                }
                return Ok(());
            }
        }
        if self.fewest > 1 {
            self.list_kept();
        }
        let kept = self.kept.unwrap_or(Kept::Long { last: order::end(self.row.tokens()), weighed: None });
        let (kept, total) = self.search.weigh(&self.row, self.mass, kept);
        let least = ((p * total as f64).ceil() as u64).max(1);
        if least > self.first {
            return Ok(());
        }
        let reach = down_to(self.mass.least_logit(least));
        let last_up_to = |list: &List, reach| list.up_to(reach).map(|(key, _)| key).max().unwrap_or(order::START);
        let Search { list, dropped, .. } = &mut *self.search;
        let stays;
        self.kept = Some(match kept {
            Kept::Long { last, weighed: Some(weighed) } => {
                dropped.fill(&self.row, self.mass, reach.min(last), usize::MAX);
                stays = last_up_to(dropped, u64::MAX);
                dropped.retain(|key| key < stays);
                if dropped.has_any_before(stays, exempt) {
                    return Ok(());
                }
                Kept::Without { last, weighed: Some(weighed) }
            }
            _ => {
                stays = last_up_to(list, reach);
                let left = list.keys().iter().filter(|&&key| key >= stays).count();
                if left < self.fewest || list.has_any_before(stays, exempt) {
                    return Ok(());
                }
                list.retain(|key| key >= stays);
                kept
            }
        });
        self.first = self.mass.of(order::logit(stays)).min(1 << S); // above only if the row changes
        Ok(())
    }
}

/// Returns the last of the first `count` keys, or None if these are all. 1 <= count
fn last_before(keys: &[u64], count: usize) -> Option<u64> {
    (count < keys.len()).then(|| keys[count - 1])
}

impl Search {
    /// Reserves what a row of `tokens` tokens may need at most, so that no buffer grows later.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        let blocks = tokens.div_ceil(BLOCK);
        self.list.reserve(tokens)?;
        self.ledger.reserve(blocks)?;
        self.passes.reserve(tokens)?;
        self.dropped.reserve(tokens)?;
        self.reweighed.reserve(blocks)?;
        reserve(&mut self.work_floats, blocks.max(top_p::most_sampled(tokens)))
    }

    /// Lists the k largest tokens, or all tokens that are not banned if those are fewer. Returns a key that comes after all of
    /// them and before the others.
    #[inline(always)]
    fn list_top_k<R: Row>(&mut self, row: &R, k: usize) -> Result<u64, RowError> {
        let floor = top_k::floor(row, k, &mut self.work_floats);
        // Only ties at the floor can make the list longer than this.
        let limit = k.saturating_mul(BLOCK).min(most_listed(row.tokens()));
        if self.list.collect(row, Prefix::to(down_to(floor)), limit) {
            let keys = self.list.keys();
            if keys.len() <= k {
                return Ok(if keys.len() < k { u64::MAX } else { keys.iter().copied().max().unwrap_or(u64::MAX) });
            }
            let last = self.list.last_of_first::<R::Isa>(k);
            self.list.truncate(last);
            Ok(last)
        } else {
            let last = self.passes.last_of_top_k(row, k)?;
            self.list.collect(row, Prefix::to(last), k);
            Ok(last)
        }
    }

    /// Finds the nucleus of a whole row. If it has few tokens, it is found in a list of the heaviest ones, and the bounds of
    /// the row's mass are refined until the last token is certain. Among thousands of tokens only the exact mass can tell.
    #[inline(always)]
    fn nucleus<R: Row>(&mut self, row: &R, mass: Mass, share: Share) -> Result<Kept, RowError> {
        let limit = most_listed(row.tokens());
        let mut least = HEAVY;
        let mut is_listed = self.list.fill(row, mass, down_to(mass.floor(HEAVY)), limit / FIRST_SHARE);
        let mut total = None;
        if is_listed {
            self.ledger.open(row, mass, OPEN_TO_SUM);
            total = Some(self.ledger.total());
        }
        while let Some((low_total, high_total)) = total
            && is_listed
        {
            let needs = (share.need(low_total), share.need(high_total));
            if self.list.total() < needs.1 {
                let mut tokens = 0;
                if least == HEAVY {
                    (least, tokens) = top_p::guess_least_mass(row, mass, needs.0, low_total, &mut self.work_floats);
                    least = least.min(HEAVY >> LIGHTER);
                } else {
                    least >>= MUCH_LIGHTER;
                }
                is_listed =
                    least > 0 && tokens <= limit && self.list.fill(row, mass, down_to(mass.floor(least)), limit);
                continue;
            }
            // The last token most often weighs little more than the lightest one that is listed, once that is a guess.
            let may_be_certain = least == HEAVY || needs.1 - needs.0 <= least << LIGHTER;
            let last = if may_be_certain { self.list.last_reaching::<R::Isa>(needs) } else { None };
            if let Some(last) = last {
                return Ok(Kept::Listed { last });
            }
            if self.ledger.is_complete() {
                let exact = self.total(row, mass);
                if total == Some((exact, exact)) {
                    return Err(RowError::Changed); // an exact mass says which token is the last one
                }
                total = Some((exact, exact));
            } else {
                self.ledger.refine(row, mass)?;
                total = Some(self.ledger.total());
            }
        }
        self.long_nucleus(row, mass, share, order::end(row.tokens()), total.map(|total| total.0))
    }

    /// Finds the nucleus of the tokens up to `last` by passes. `total` is approximately the mass of the row, if that is known.
    fn long_nucleus<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        share: Share,
        last: u64,
        total: Option<u64>,
    ) -> Result<Kept, RowError> {
        let weighed = self.passes.nucleus(row, mass, share, last, total, &mut self.ledger)?;
        Ok(Kept::Long { last: weighed.last, weighed: Some(weighed) })
    }

    /// Lists the tokens that have the share `p` of the mass of the row, and perhaps others, and returns the least mass of the
    /// former. Returns None if they are too many to be listed. The ledger is open afterwards, unless less than two tokens have
    /// the share.
    fn list_share<R: Row>(&mut self, row: &R, mass: Mass, p: f64) -> Result<Option<u64>, RowError> {
        let least = |total: u64| ((p * total as f64).ceil() as u64).max(1);
        // The row has at least the mass of the maxima. So what is lighter than this share of theirs does not have its share of
        // the row: the conversions, the product and `ceil` never decrease when the mass increases.
        let low = least(self.list.total_of_logits::<R::Isa>(mass, row.maxima()));
        if !self.list.fill(row, mass, down_to(mass.floor(low)), most_listed(row.tokens())) {
            return Ok(None);
        }
        if self.list.masses().iter().filter(|&&mass| mass >= low).count() < 2 {
            return Ok(Some(low));
        }
        self.ledger.open(row, mass, OPEN_TO_COMPARE);
        loop {
            let (low, high) = at_both_ends(least, self.ledger.total());
            if !self.list.masses().iter().any(|mass| (low..high).contains(mass)) {
                return Ok(Some(high));
            }
            self.ledger.refine(row, mass)?;
        }
    }

    /// Finds the tokens that have at least the mass that `least` gives for the mass of the whole row. If they are few, they
    /// are listed, and the bounds of the row's mass are refined until it is certain which listed tokens are heavy enough.
    fn heavy<R: Row>(&mut self, row: &R, mass: Mass, least: &dyn Fn(u64) -> u64) -> Result<Kept, RowError> {
        self.ledger.open(row, mass, OPEN_TO_COMPARE);
        let (low, _) = at_both_ends(least, self.ledger.total());
        if !self.list.fill(row, mass, down_to(mass.floor(low)), most_listed(row.tokens())) {
            let least = least(self.total(row, mass));
            return Ok(Kept::Long { last: down_to(mass.least_logit(least)), weighed: None });
        }
        loop {
            let (low, high) = at_both_ends(least, self.ledger.total());
            if !self.list.masses().iter().any(|mass| (low..high).contains(mass)) {
                return Ok(Kept::Listed { last: down_to(mass.least_logit(high)) });
            }
            self.ledger.refine(row, mass)?;
        }
    }

    /// Returns the mass of the kept tokens, and with them what was weighed to find it.
    fn weigh<R: Row>(&mut self, row: &R, mass: Mass, kept: Kept) -> (Kept, u64) {
        match kept {
            Kept::Listed { last } => (kept, self.list.total_up_to::<R::Isa>(last)),
            Kept::Long { last, weighed } => {
                let weighed = self.passes.weigh(row, mass, last, weighed);
                (Kept::Long { last, weighed: Some(weighed) }, self.passes.total::<R::Isa>(weighed))
            }
            Kept::Without { last, weighed } => {
                let weighed = self.passes.weigh(row, mass, last, weighed);
                let total = self.passes.total::<R::Isa>(weighed);
                // As much as was dropped is there, unless the row changes.
                (Kept::Without { last, weighed: Some(weighed) }, total.saturating_sub(self.dropped.total()))
            }
        }
    }

    /// Lists the heaviest tokens up to `last`, as many as it takes to know where the tail begins, and returns the last one
    /// before the tail, or None if there is no tail.
    fn before_tail<R: Row>(&mut self, row: &R, mass: Mass, z: f64, last: u64) -> Option<u64> {
        let last = last.min(down_to(f32::MIN));
        let mut least = HEAVY;
        loop {
            let lightest = if least == 0 { last } else { last.min(down_to(mass.floor(least))) };
            self.list.collect(row, Prefix::to(lightest), usize::MAX);
            let masses = self.list.sorted_masses::<R::Isa>(mass);
            let is_all = lightest == last || masses.len() == row.tokens();
            match R::Isa::run(|| tail::start(masses, z, is_all)) {
                Ok(count) => {
                    let last = self.list.last_of_sorted(count)?;
                    self.list.fill(row, mass, last, usize::MAX);
                    return Some(last);
                }
                // After a long list, a list of all tokens takes less time than one after the other that is a little longer.
                Err(_) if masses.len() > most_listed(row.tokens()) => least = 0,
                Err(lower) => least = lower.min(least >> LIGHTER),
            }
        }
    }

    /// Returns the last token before the tail of the list up to `last`, or None if there is no tail.
    fn before_tail_of_list<R: Row>(&mut self, mass: Mass, z: f64, last: u64) -> Option<u64> {
        let mut least = HEAVY;
        loop {
            let (keys, masses, is_all) = self.list.heaviest::<R::Isa>(mass, last, least);
            match tail::start(masses, z, is_all) {
                Ok(count) => return last_before(keys, count),
                Err(lower) => least = lower.min(least >> LIGHTER),
            }
        }
    }

    /// Returns the token that the word draws from the kept tokens, which are all tokens if this is None. Its interval of the mass
    /// line is exact if `with_interval`.
    #[inline(always)]
    pub fn draw<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        kept: Option<Kept>,
        word: u64,
        with_interval: bool,
    ) -> Result<Drawn, RowError> {
        if let (Some(center), Some(before)) = (self.center, self.before) {
            return self.draw_reweighed(row, mass, last_of(row, kept), [center, before as f64], word);
        }
        match kept {
            Some(Kept::Without { weighed: None, .. }) if !with_interval => self.draw_without(row, mass, word),
            Some(kept) => self.draw_from_kept(row, mass, kept, word),
            None if with_interval => {
                self.draw_from_kept(row, mass, Kept::Long { last: order::end(row.tokens()), weighed: None }, word)
            }
            None => self.draw_from_all(row, mass, word),
        }
    }

    /// Returns the token that the word draws from the kept tokens.
    #[inline(always)]
    fn draw_from_kept<R: Row>(&mut self, row: &R, mass: Mass, kept: Kept, word: u64) -> Result<Drawn, RowError> {
        let drawn = match kept {
            Kept::Listed { last } => self.list.draw(last, word),
            Kept::Long { last, weighed } => {
                let weighed = self.passes.weigh(row, mass, last, weighed);
                self.passes.draw(row, mass, weighed, word, None)
            }
            Kept::Without { last, weighed } => {
                let weighed = self.passes.weigh(row, mass, last, weighed);
                self.passes.draw(row, mass, weighed, word, Some(&self.dropped))
            }
        };
        drawn.ok_or(RowError::Changed)
    }

    /// Returns the token that the word draws from the whole row without the dropped tokens, with a ledger that is open. Its
    /// interval need not be exact.
    fn draw_without<R: Row>(&mut self, row: &R, mass: Mass, word: u64) -> Result<Drawn, RowError> {
        loop {
            let dropped = (self.dropped.keys(), self.dropped.masses());
            if let Some(drawn) = without::draw(row, mass, &self.ledger, word, dropped) {
                return Ok(drawn);
            }
            self.ledger.refine(row, mass)?;
        }
    }

    /// Returns the token that the word draws from the whole row. Its interval need not be exact.
    fn draw_from_all<R: Row>(&mut self, row: &R, mass: Mass, word: u64) -> Result<Drawn, RowError> {
        self.ledger.open(row, mass, OPEN_TO_COMPARE);
        self.draw_from_ledger(row, mass, word)
    }

    /// Does the same with a ledger that is open.
    #[inline(always)]
    fn draw_from_ledger<R: Row>(&mut self, row: &R, mass: Mass, word: u64) -> Result<Drawn, RowError> {
        loop {
            if let Some(drawn) = draw::from_row(row, mass, &self.ledger, word) {
                return Ok(drawn);
            }
            self.ledger.refine(row, mass)?;
        }
    }

    /// Gives the kept tokens the masses of adaptive-p, if that is on and they do not have them yet. Afterwards they are listed.
    pub fn reweigh_listed<R: Row>(&mut self, row: &R, mass: Mass, kept: Option<Kept>) -> Option<Kept> {
        let (Some(center), Some(total)) = (self.center.take(), self.before) else { return kept };
        let kept = match kept {
            Some(Kept::Listed { .. }) => kept,
            _ => {
                let last = last_of(row, kept);
                self.list.fill(row, mass, not_banned_key(last), usize::MAX);
                Some(Kept::Listed { last })
            }
        };
        R::Isa::run(|| adaptive::reweigh(self.list.masses_to_replace(), total, center));
        kept
    }

    /// Returns the token that the word draws from those up to `last` by the masses of adaptive-p.
    #[inline(never)]
    fn draw_reweighed<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        last: u64,
        [center, total]: [f64; 2],
        word: u64,
    ) -> Result<Drawn, RowError> {
        self.reweighed.weigh(row, mass, last, total, center);
        self.reweighed.draw(row, mass, last, word).ok_or(RowError::Changed)
    }

    /// Returns the mass that the tokens that are kept had before adaptive-p, if that is on.
    pub fn before(&self) -> Option<u64> {
        self.before
    }

    /// Returns the mass of the tokens that are kept.
    pub fn total_of<R: Row>(&mut self, row: &R, mass: Mass, kept: Option<Kept>) -> u64 {
        match kept {
            Some(kept) => self.weigh(row, mass, kept).1,
            None => self.total(row, mass),
        }
    }

    /// Returns the mass of a token, which is 0 if the token is not kept.
    pub fn mass_of<R: Row>(&self, row: &R, mass: Mass, kept: Option<Kept>, id: usize) -> u64 {
        let key = order::key(row.logit(id), id);
        let is_kept = match kept {
            Some(Kept::Listed { last }) => {
                return self.list.up_to(last).find(|listed| listed.0 == key).map_or(0, |listed| listed.1);
            }
            Some(Kept::Long { last, .. }) => key <= last,
            Some(Kept::Without { last, .. }) => key <= last && !self.dropped.keys().contains(&key),
            None => true,
        };
        if is_kept { mass.of(order::logit(key)) } else { 0 }
    }

    /// Returns the mass of the whole row.
    #[inline(always)]
    pub fn total<R: Row>(&self, row: &R, mass: Mass) -> u64 {
        mass.of_row(row)
    }

    /// Returns the keys of the tokens that survive, and their masses, in the total order. Banned tokens are never among them.
    pub fn survivors<R: Row>(&mut self, row: &R, mass: Mass, kept: Option<Kept>) -> (&[u64], &[u64]) {
        let last = self.list_survivors(row, kept);
        match self.before {
            None => self.list.sort::<R::Isa>(last, mass),
            Some(_) => self.list.sort_with_masses(),
        }
        (self.list.keys(), self.list.masses())
    }

    /// Returns the same in the order of the ids.
    pub fn survivors_by_id<R: Row>(&mut self, row: &R, mass: Mass, kept: Option<Kept>) -> (&[u64], &[u64]) {
        let last = self.list_survivors(row, kept);
        if self.before.is_none() {
            self.list.truncate(last);
            self.list.weigh::<R::Isa>(mass);
        }
        (self.list.keys(), self.list.masses())
    }

    /// Lists the tokens that survive, and returns the key of the last one. Tokens after it may be listed, too.
    fn list_survivors<R: Row>(&mut self, row: &R, kept: Option<Kept>) -> u64 {
        match kept {
            Some(Kept::Listed { last }) => last,
            Some(Kept::Long { last, .. }) => self.list_prefix(row, last),
            Some(Kept::Without { last, .. }) => self.list_without(row, last),
            None => self.list_prefix(row, order::end(row.tokens())),
        }
    }

    /// Lists the tokens up to `last` that are not banned, however many there are.
    #[inline(always)]
    fn list_prefix<R: Row>(&mut self, row: &R, last: u64) -> u64 {
        self.list.collect(row, Prefix::not_banned(last), usize::MAX);
        last
    }

    /// Lists the tokens of a long prefix that were not dropped.
    fn list_without<R: Row>(&mut self, row: &R, last: u64) -> u64 {
        self.list_prefix(row, last);
        self.list.remove(&self.dropped);
        last
    }

    /// Fills `out` with the logits of the kept tokens as they are in memory, and with -inf in place of all others.
    pub fn mask<R: Row>(&self, row: &R, kept: Option<Kept>, out: &mut [R::Logit]) {
        match kept {
            Some(Kept::Listed { last }) => {
                out.fill(R::Logit::NEG_INFINITY);
                for (key, _) in self.list.up_to(last) {
                    out[order::id(key)] = row.stored()[order::id(key)];
                }
            }
            Some(Kept::Long { last, .. }) => prefix::copy(row, Prefix::not_banned(last), out),
            Some(Kept::Without { last, .. }) => {
                prefix::copy(row, Prefix::not_banned(last), out);
                for &key in self.dropped.keys() {
                    out[order::id(key)] = R::Logit::NEG_INFINITY;
                }
            }
            None => prefix::copy(row, Prefix::not_banned(u64::MAX), out),
        }
    }

    /// Returns the keys of the k largest logits, in the total order. Banned tokens come last, as in any sort.
    pub fn top_k<R: Row>(&mut self, row: &R, k: usize) -> Result<&[u64], RowError> {
        self.passes.begin();
        let is_short = k <= most_listed(row.tokens());
        if is_short {
            self.list_top_k(row, k)?;
        }
        if !is_short || self.list.keys().len() < k {
            let last = if k < row.tokens() { self.passes.last_of_top_k(row, k)? } else { order::end(row.tokens()) };
            self.list.collect(row, Prefix::to(last), k);
        }
        if self.list.keys().len() < k {
            return Err(RowError::Changed);
        }
        Ok(self.list.sorted_keys())
    }
}
