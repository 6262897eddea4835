//! What makes a row of logits another one than that in memory: tokens that are not allowed, and logits that were edited.
//!
//! ```text
//! changed = np.where(allowed, row, -np.inf)
//! changed[ids] = logits                         # the edited ones
//! ```
//!
//! The logits in memory are the caller's, and are never written to. What is changed is written to a copy of one block at a
//! time, when that block is read.
//!
//! Edge rule: an id that the row does not have changes nothing.
//!
//! How it is fast: a block of 64 tokens has one word that says which tokens are allowed and one that says which logits were
//! edited. So a block without changes costs two comparisons. Nothing is sorted: the edits of a block lie side by side, and the
//! place of an edit among them is the number of bits before its own. What is left to do for a row without a bitmask depends on
//! the number of its edits, and not on its length.

use crate::error::{RowError, reserve};
use crate::isa::Vector;
use crate::lanes::{BLOCK, max};
use crate::methods::Edit;
use crate::repeats::Repeats;
use crate::steps::Step;

/// Every token of a block.
const ALL: u64 = u64::MAX;

/// The changes of one row.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// For each block, which tokens are allowed.
    allowed: Vec<u64>,
    /// True if all are, in all blocks.
    are_all_allowed: bool,
    /// For each block, which logits were edited, and where they begin in `logits`.
    edited: Vec<u64>,
    begins: Vec<u32>,
    /// The blocks with edited logits.
    touched: Vec<u32>,
    /// The blocks with a maximum that must be looked for again.
    stale: Vec<u32>,
    /// The edited logits, and what they were before. Those of a block are in the order of the ids.
    logits: Vec<f32>,
    old: Vec<f32>,
    /// What to add to each of these logits.
    biases: Vec<f32>,
    /// 0 for a token that is not in the history, and otherwise one more than the number of times that it was put out.
    times: Vec<u32>,
    /// What else is known of each of them. Empty if that is nothing.
    extras: Vec<Extra>,
    /// Scratch space: the words of another set of allowed tokens, and what is found in the history.
    only: Vec<u64>,
    pub found: Found,
}

/// What is known of a token whose logit is edited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    /// What to add to its logit.
    pub bias: f32,
    /// True if it is in the history.
    pub is_seen: bool,
    /// How often it was put out.
    pub count: u32,
}

/// What is known of a token beside that: what few draws need.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// The sum of the biases of the sequences that it ends.
    pub sequence_bias: f64,
    /// True if it is in the prompt.
    pub is_in_prompt: bool,
    /// How many tokens before it are repeated, if DRY penalizes that, and what to subtract from its logit.
    pub repeated: u32,
    pub dry: f32,
    /// What to add to its logit, as a share of its absolute value.
    pub growth: f32,
}

/// What was found in the history, for tokens that may be named more than once.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub repeats: Repeats,
    /// For each block of tokens, which ones are breakers of DRY.
    pub breakers: Vec<u64>,
    pub sequence_biases: Vec<(u32, f64)>,
    /// How many tokens are repeated before this one.
    pub repeated: Vec<(u32, u32)>,
}

impl Changes {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.allowed, blocks)?;
        reserve(&mut self.only, blocks)?;
        reserve(&mut self.edited, blocks)?;
        reserve(&mut self.begins, blocks)?;
        reserve(&mut self.touched, blocks)?;
        reserve(&mut self.stale, blocks)
    }

    /// Begins with a row in which all tokens are allowed that the bitmask allows, and no logit is edited.
    #[inline(always)]
    pub fn begin(&mut self, tokens: usize, bitmask: Option<&[u32]>) {
        let blocks = tokens.div_ceil(BLOCK);
        for block in self.touched.drain(..) {
            self.edited[block as usize] = 0;
        }
        self.edited.resize(blocks, 0);
        self.begins.resize(blocks, 0);
        let had_all = self.are_all_allowed;
        self.are_all_allowed = true;
        let Some(words) = bitmask else {
            if had_all {
                self.allowed.resize(blocks, ALL);
            } else {
                self.allowed.clear();
                self.allowed.resize(blocks, ALL);
            }
            return;
        };
        self.allowed.resize(blocks, 0);
        let (pairs, rest) = words.as_chunks::<2>();
        for (allowed, [low, high]) in self.allowed.iter_mut().zip(pairs) {
            *allowed = u64::from(*low) | u64::from(*high) << 32;
        }
        if let Some(others) = self.allowed.get_mut(pairs.len()..) {
            others.fill(0);
            if let (Some(allowed), Some(low)) = (others.first_mut(), rest.first()) {
                *allowed = u64::from(*low);
            }
        }
        if let Some(last) = self.allowed.last_mut()
            && !tokens.is_multiple_of(BLOCK)
        {
            *last |= ALL << (tokens % BLOCK); // no token has these bits
        }
        self.are_all_allowed = self.allowed.iter().fold(ALL, |all, word| all & word) == ALL;
    }

    /// For each block, which tokens are allowed, or None if all of them are.
    #[inline(always)]
    pub fn allowed(&self) -> Option<&[u64]> {
        if self.are_all_allowed { None } else { Some(&self.allowed) }
    }

    /// Bans a token.
    pub fn ban(&mut self, id: u32) {
        let bit = 1 << (id as usize % BLOCK);
        // Without the comparison, each time that the same token is banned would wait for the time before.
        if let Some(word) = self.allowed.get_mut(id as usize / BLOCK)
            && *word & bit != 0
        {
            *word &= !bit;
            self.are_all_allowed = false;
        }
    }

    /// Bans all tokens but these.
    pub fn ban_all_but(&mut self, ids: &[u32]) {
        self.only.clear();
        self.only.resize(self.allowed.len(), 0);
        for &id in ids {
            let block = id as usize / BLOCK;
            if let (Some(word), Some(allowed)) = (self.only.get_mut(block), self.allowed.get(block)) {
                *word |= allowed & 1 << (id as usize % BLOCK);
            }
        }
        std::mem::swap(&mut self.only, &mut self.allowed);
        self.are_all_allowed = false;
    }

    #[inline(always)]
    fn is_allowed(&self, id: usize) -> bool {
        self.allowed[id / BLOCK] >> (id % BLOCK) & 1 == 1
    }

    /// Notes that these tokens will be edited.
    #[inline(always)]
    pub fn note<'a>(&mut self, ids: impl Iterator<Item = &'a u32>, tokens: usize) {
        let Changes { edited, touched, .. } = self;
        ids.for_each(|&id| {
            let (block, place) = (id as usize / BLOCK, id as usize % BLOCK);
            if let Some(word) = edited.get_mut(block)
                && (id as usize) < tokens
            {
                if *word == 0 {
                    touched.push(block as u32);
                }
                *word |= 1 << place;
            }
        });
    }

    /// Makes a place for each noted token, of which nothing is known yet.
    #[inline(always)]
    pub fn make_places(&mut self) -> Result<(), RowError> {
        let mut count = 0;
        for &block in &self.touched {
            self.begins[block as usize] = count;
            count += self.edited[block as usize].count_ones();
        }
        for numbers in [&mut self.logits, &mut self.old, &mut self.biases] {
            numbers.clear();
            reserve(numbers, count as usize)?;
            numbers.resize(count as usize, 0.0);
        }
        self.times.clear();
        reserve(&mut self.times, count as usize)?;
        self.times.resize(count as usize, 0);
        self.extras.clear();
        Ok(())
    }

    /// Makes a place for what else is known of each of these tokens. Nothing is yet.
    pub fn make_places_for_extras(&mut self) -> Result<(), RowError> {
        reserve(&mut self.extras, self.times.len())?;
        self.extras.resize(self.times.len(), Extra::default());
        Ok(())
    }

    /// Notes what to add to the logit of a token for which there is a place.
    #[inline(always)]
    pub fn bias(&mut self, id: u32, bias: f32) {
        if let Some(place) = self.place(id) {
            self.biases[place] = bias;
        }
    }

    /// Notes which tokens are in the prompt and in the output. Those for which there is no place are ignored.
    #[inline(always)]
    pub fn see(&mut self, prompt_ids: &[u32], output_ids: &[u32]) {
        for &id in prompt_ids {
            if let Some(place) = self.place(id) {
                self.times[place] = 1;
            }
        }
        for &id in output_ids {
            if let Some(place) = self.place(id) {
                self.times[place] = self.times[place].max(1) + 1;
            }
        }
    }

    /// What else is known of a token for which there is a place.
    pub fn extra(&mut self, id: u32) -> Option<&mut Extra> {
        let place = self.place(id)?;
        self.extras.get_mut(place)
    }

    /// What else is known of each token.
    pub fn extras(&mut self) -> &mut [Extra] {
        &mut self.extras
    }

    #[inline(always)]
    fn place(&self, id: u32) -> Option<usize> {
        let (block, place) = (id as usize / BLOCK, id as usize % BLOCK);
        let word = self.edited.get(block).copied().filter(|word| word >> place & 1 == 1)?;
        Some(place_of_edit(self.begins[block], word, place))
    }

    /// Computes the new logit of each noted token from its old one, which `logit` gives, and what is known of the token. For
    /// each block that has any, `changed` is given the largest old and the largest new one of these logits, and returns true if
    /// the maximum of the block must be looked for again.
    #[inline(always)]
    pub fn edit(&mut self, logit: impl Fn(usize) -> f32, edit: Edit<'_>, changed: impl FnMut(usize, f32, f32) -> bool) {
        if let Some(order) = edit.order() {
            self.edit_in_order(logit, edit, order, changed);
        } else if self.extras.is_empty() {
            self.edit_each(logit, |logit, token, _| edit.apply(logit, token, None), changed);
        } else {
            let extras = std::mem::take(&mut self.extras);
            self.edit_each(logit, |logit, token, place| edit.apply(logit, token, extras.get(place).copied()), changed);
            self.extras = extras;
        }
    }

    /// Does the same for an order that is not the default. This is not inlined, so that the others are as fast as without it.
    #[cold]
    #[inline(never)]
    fn edit_in_order(
        &mut self,
        logit: impl Fn(usize) -> f32,
        edit: Edit<'_>,
        order: &[Step],
        changed: impl FnMut(usize, f32, f32) -> bool,
    ) {
        let extras = std::mem::take(&mut self.extras);
        let extra = |place: usize| extras.get(place).copied().unwrap_or_default();
        let new = |logit, token, place| edit.apply_in_order(order, logit, token, extra(place));
        self.edit_each(logit, new, changed);
        self.extras = extras;
    }

    #[inline(always)]
    fn edit_each(
        &mut self,
        logit: impl Fn(usize) -> f32,
        new: impl Fn(f32, Token, usize) -> f32,
        mut changed: impl FnMut(usize, f32, f32) -> bool,
    ) {
        // The loop in the middle is vector code, so the old logits are looked up before, and the blocks looked at after it.
        let mut olds = self.old.iter_mut();
        for &block in &self.touched {
            let block = block as usize;
            let (mut word, allowed) = (self.edited[block], self.allowed[block]);
            for old in olds.by_ref() {
                let place = word.trailing_zeros() as usize;
                *old = if allowed >> place & 1 == 1 { logit(block * BLOCK + place) } else { f32::NEG_INFINITY };
                word &= word - 1;
                if word == 0 {
                    break;
                }
            }
        }
        let known = self.biases.iter().zip(&self.times);
        for (place, ((edited, &old), (&bias, &times))) in self.logits.iter_mut().zip(&self.old).zip(known).enumerate() {
            *edited = new(old, Token { bias, is_seen: times > 0, count: times.saturating_sub(1) }, place);
        }
        self.stale.clear();
        let mut logits = self.old.iter().zip(&self.logits);
        for &block in &self.touched {
            let (mut largest_old, mut largest_new) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            for (&old, &new) in logits.by_ref().take(self.edited[block as usize].count_ones() as usize) {
                largest_old = max(largest_old, old);
                largest_new = max(largest_new, new);
            }
            if changed(block as usize, largest_old, largest_new) {
                self.stale.push(block);
            }
        }
    }

    /// True if there are edited logits.
    pub fn has_edits(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The blocks with a maximum that must be looked for again after the edits.
    pub fn stale(&self) -> &[u32] {
        &self.stale
    }

    /// Returns the logit of a token, given that in memory.
    #[inline(always)]
    pub fn logit(&self, id: usize, stored: f32) -> f32 {
        let (block, place) = (id / BLOCK, id % BLOCK);
        let word = self.edited[block];
        if word >> place & 1 == 1 {
            return self.logits[place_of_edit(self.begins[block], word, place)];
        }
        if self.is_allowed(id) { stored } else { f32::NEG_INFINITY }
    }

    /// Applies the changes to a block, if it has any, in a copy.
    #[inline(always)]
    pub fn apply<'b, I: Vector>(
        &self,
        index: usize,
        block: &'b [f32; BLOCK],
        copy: &'b mut Option<[f32; BLOCK]>,
    ) -> &'b [f32; BLOCK] {
        let (allowed, edited) = (self.allowed[index], self.edited[index]);
        if allowed == ALL && edited == 0 {
            return block;
        }
        let copy = copy.insert(*block);
        if allowed != ALL {
            *copy = I::allowed(copy, allowed);
        }
        if edited != 0 {
            let mut word = edited;
            for &logit in &self.logits[self.begins[index] as usize..] {
                copy[word.trailing_zeros() as usize % BLOCK] = logit;
                word &= word - 1;
                if word == 0 {
                    break;
                }
            }
        }
        copy
    }
}

/// The place of an edit: after those of the tokens before it in its block, which has the word.
#[inline(always)]
fn place_of_edit(begins: u32, word: u64, place: usize) -> usize {
    (begins + (word & ((1 << place) - 1)).count_ones()) as usize
}
