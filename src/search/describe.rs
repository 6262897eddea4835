//! Describes a token: its log-probability and its rank, and those of others beside it. `logprobs.rs` says what they are.

use super::{Kept, Search, not_banned_key};
use crate::error::RowError;
use crate::kernels::mass::Mass;
use crate::kernels::order::{self, Prefix};
use crate::kernels::prefix;
use crate::kernels::softmax::LogProbability;
use crate::logprobs::{Logprobs, Numbers};
use crate::row::Row;

impl Search {
    /// Returns the token that the word draws from the kept tokens (from all, if that is None), after describing it.
    pub fn draw_and_describe<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        kept: Option<Kept>,
        word: u64,
        logprobs: &mut Logprobs<'_>,
    ) -> Result<usize, RowError> {
        let mode = logprobs.mode;
        let is_of_kept = mode.is_processed || kept.is_none() && mass.temperature() == 1.0;
        let is_exact = is_of_kept && !mode.is_logits;
        let drawn = self.draw(row, mass, kept, word, is_exact)?;
        let (token, total) = (drawn.token, is_exact.then_some(drawn.total));
        match kept {
            _ if !mode.is_processed => self.describe_in_row(row, token, total, logprobs)?,
            None => self.describe_in_prefix(row, mass, u64::MAX, total, token, logprobs)?,
            Some(Kept::Long { last, .. }) => self.describe_in_prefix(row, mass, last, total, token, logprobs)?,
            Some(Kept::Listed { last }) => self.describe_in_list(row, mass, last, token, logprobs)?,
            Some(Kept::Without { last, .. }) => {
                let last = self.list_without(row, last);
                self.describe_in_list(row, mass, last, token, logprobs)?;
            }
        }
        Ok(token)
    }

    /// Describes a token of a row at temperature 1. `total` is the mass of the row, if that is known.
    pub fn describe_in_row<R: Row>(
        &mut self,
        row: &R,
        token: usize,
        total: Option<u64>,
        logprobs: &mut Logprobs<'_>,
    ) -> Result<(), RowError> {
        self.describe_in_prefix(row, Mass::new(row.maximum(), 1.0), u64::MAX, total, token, logprobs)
    }

    /// Describes one of the tokens up to `last`, whose mass is `total`, or that of the whole row if it is None.
    fn describe_in_prefix<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        last: u64,
        total: Option<u64>,
        token: usize,
        logprobs: &mut Logprobs<'_>,
    ) -> Result<(), RowError> {
        let total = (!logprobs.mode.is_logits).then(|| total.unwrap_or_else(|| self.total(row, mass)));
        let (last, numbers) = (not_banned_key(last), numbers(mass, total));
        *logprobs.rank = self.rank(row, token) as i64;
        *logprobs.logprob = numbers.of(row.logit(token));
        for (number, &id) in logprobs.given_logprobs.iter_mut().zip(logprobs.given_ids) {
            let x = row.logit(id as usize);
            *number = if order::key(x, id as usize) <= last { numbers.of(x) } else { f64::NEG_INFINITY };
        }
        if !logprobs.top_ids.is_empty() {
            let keys = self.top_k(row, logprobs.top_ids.len())?;
            let ids = keys.iter().take_while(|&&key| key <= last).map(|&key| order::id(key));
            logprobs.set_top(ids, |id| numbers.of(row.logit(id)));
        }
        Ok(())
    }

    /// Describes one of the listed tokens up to `last`. This drops tokens from the list.
    fn describe_in_list<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        last: u64,
        token: usize,
        logprobs: &mut Logprobs<'_>,
    ) -> Result<(), RowError> {
        let list = &mut self.list;
        let keys = || list.keys().iter().copied().filter(|&key| key <= last);
        let first = keys().min().ok_or(RowError::Changed)?;
        let own = order::key(row.logit(token), token);
        *logprobs.rank = keys().filter(|&key| key <= own).count() as i64;
        // Tokens far below the row's maximum have small masses, which are rounded to integers, so that their logarithms would
        // not be precise. They are weighed relative to the first of them.
        let mass = Mass::new(order::logit(first), mass.temperature());
        let total = (!logprobs.mode.is_logits).then(|| {
            list.weigh::<R::Isa>(mass);
            list.total_up_to::<R::Isa>(last)
        });
        let numbers = numbers(mass, total);
        *logprobs.logprob = numbers.of(row.logit(token));
        for (number, &id) in logprobs.given_logprobs.iter_mut().zip(logprobs.given_ids) {
            let found = list.keys().binary_search_by_key(&(id as usize), |&key| order::id(key));
            let is_kept = found.is_ok_and(|place| list.keys()[place] <= last);
            *number = if is_kept { numbers.of(row.logit(id as usize)) } else { f64::NEG_INFINITY };
        }
        if !logprobs.top_ids.is_empty() {
            let end = list.last_of_first::<R::Isa>(logprobs.top_ids.len());
            list.truncate(end.min(last));
            let ids = list.sorted_keys().iter().map(|&key| order::id(key));
            logprobs.set_top(ids, |id| numbers.of(row.logit(id)));
        }
        Ok(())
    }

    /// Returns the place of a token in the total order of all tokens, banned ones included. The first one has 1.
    #[inline(always)]
    pub fn rank<R: Row>(&mut self, row: &R, token: usize) -> usize {
        let prefix = Prefix::to(order::key(row.logit(token), token));
        prefix::count(row, prefix, prefix, self.list.keys_to_fill())
    }
}

/// Returns what turns logits into the numbers that are wanted: log-probabilities, for which the total mass is given, or logits.
fn numbers(mass: Mass, total: Option<u64>) -> Numbers {
    match total {
        Some(total) => Numbers::LogProbabilities(LogProbability::new(mass.maximum(), mass.temperature(), total)),
        None => Numbers::Logits { temperature: mass.temperature() },
    }
}
