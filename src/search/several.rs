//! Several draws from the same tokens, which are found once.
//!
//! ```text
//! for word in words:
//!     token = draw(ids, masses, word)               # as in kernels/draw.rs
//!     masses[ids == token] = 0                      # without replacement
//! ```
//!
//! A draw goes through the list, or through the masses of the blocks, which are weighed once. Without replacement, a token
//! that was drawn is like one that a filter dropped: it loses its mass in a list, and is left out of the blocks.

use super::{Kept, OPEN_TO_COMPARE, Search};
use crate::error::RowError;
use crate::kernels::draw::{self, Drawn};
use crate::kernels::mass::Mass;
use crate::kernels::order;
use crate::rng::Draws;
use crate::row::Row;

impl Search {
    /// Draws a token for each place of `tokens`, one after another. Without replacement, the places for which no token with a
    /// mass is left get -1.
    pub fn draw_several<R: Row>(
        &mut self,
        row: &R,
        mass: Mass,
        kept: Option<Kept>,
        draws: Draws,
        tokens: &mut [i64],
    ) -> Result<(), RowError> {
        let weighed = match kept {
            Some(Kept::Listed { last }) => return self.list.draw_several(last, draws, tokens),
            None if draws.replacement => {
                self.ledger.open(row, mass, OPEN_TO_COMPARE);
                for (draw, token) in tokens.iter_mut().enumerate() {
                    *token = self.draw_from_ledger(row, mass, draws.words(draw).draw)?.token as i64;
                }
                return Ok(());
            }
            None => {
                self.dropped.clear();
                self.passes.weigh(row, mass, order::end(row.tokens()), None)
            }
            Some(Kept::Long { last, weighed }) => {
                self.dropped.clear();
                self.passes.weigh(row, mass, last, weighed)
            }
            Some(Kept::Without { last, weighed }) => self.passes.weigh(row, mass, last, weighed),
        };
        let mut left = self.passes.total::<R::Isa>(weighed).saturating_sub(self.dropped.total());
        if left == 0 {
            return Err(RowError::Changed); // the tokens that are kept have a mass
        }
        for (draw, token) in tokens.iter_mut().enumerate() {
            if left == 0 {
                *token = -1;
                continue;
            }
            let target = draw::target(draws.words(draw).draw, left);
            let found = self.passes.find(row, mass, weighed, [target, left], Some(&self.dropped));
            let Drawn { token: id, mass: drawn, .. } = found.ok_or(RowError::Changed)?;
            *token = id as i64;
            if !draws.replacement {
                self.dropped.insert(order::key(row.logit(id), id), drawn);
                left = left.saturating_sub(drawn); // it is no larger, unless the row changes
            }
        }
        Ok(())
    }
}
