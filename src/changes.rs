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
    /// The edited logits. Those of a block are in the order of the ids.
    logits: Vec<f32>,
    /// What is known of each of these tokens.
    tokens: Vec<Token>,
}

/// What is known of a token whose logit is edited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Token {
    /// What to add to its logit.
    pub bias: f32,
    /// True if it is in the history.
    pub is_seen: bool,
    /// How often it was put out.
    pub count: u32,
}

impl Changes {
    /// Reserves memory for a row with this many blocks.
    pub fn reserve(&mut self, blocks: usize) -> Result<(), RowError> {
        reserve(&mut self.allowed, blocks)?;
        reserve(&mut self.edited, blocks)?;
        reserve(&mut self.begins, blocks)?;
        reserve(&mut self.touched, blocks)
    }

    /// Begins with a row in which all tokens are allowed that the bitmask allows, and no logit is edited.
    #[inline(always)]
    pub fn begin(&mut self, blocks: usize, bitmask: Option<&[u32]>) {
        for block in self.touched.drain(..) {
            self.edited[block as usize] = 0;
        }
        self.edited.resize(blocks, 0);
        self.begins.resize(blocks, 0);
        let had_all = self.are_all_allowed;
        self.are_all_allowed = bitmask.is_none();
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
    }

    /// For each block, which tokens are allowed.
    pub fn allowed(&self) -> &[u64] {
        &self.allowed
    }

    #[inline(always)]
    fn is_allowed(&self, id: usize) -> bool {
        self.allowed[id / BLOCK] >> (id % BLOCK) & 1 == 1
    }

    /// Makes a place for each token that will be edited, of which nothing is known yet.
    #[inline(always)]
    pub fn note<'a>(&mut self, ids: impl Iterator<Item = &'a u32>, tokens: usize) -> Result<(), RowError> {
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
        let mut count = 0;
        for &block in &self.touched {
            self.begins[block as usize] = count;
            count += self.edited[block as usize].count_ones();
        }
        self.tokens.clear();
        reserve(&mut self.tokens, count as usize)?;
        self.tokens.resize(count as usize, Token::default());
        self.logits.clear();
        reserve(&mut self.logits, count as usize)?;
        self.logits.resize(count as usize, 0.0);
        Ok(())
    }

    /// What is known of a token for which there is a place.
    #[inline(always)]
    pub fn token(&mut self, id: u32) -> Option<&mut Token> {
        let (block, place) = (id as usize / BLOCK, id as usize % BLOCK);
        let word = self.edited.get(block).copied().filter(|word| word >> place & 1 == 1)?;
        self.tokens.get_mut(place_of_edit(self.begins[block], word, place))
    }

    /// Computes the new logit of each noted token from its old one, which `logit` gives, and what is known of the token. Calls
    /// `changed` with each block that has any, and the largest old and the largest new one of these logits.
    #[inline(always)]
    pub fn edit(
        &mut self,
        logit: impl Fn(usize) -> f32,
        new: impl Fn(f32, Token) -> f32,
        mut changed: impl FnMut(usize, f32, f32),
    ) {
        for &block in &self.touched {
            let block = block as usize;
            let (mut word, allowed, begins) = (self.edited[block], self.allowed[block], self.begins[block] as usize);
            let (mut largest_old, mut largest_new) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            for (edited, &token) in self.logits[begins..].iter_mut().zip(&self.tokens[begins..]) {
                let place = word.trailing_zeros() as usize;
                let old = if allowed >> place & 1 == 1 { logit(block * BLOCK + place) } else { f32::NEG_INFINITY };
                *edited = new(old, token);
                largest_old = max(largest_old, old);
                largest_new = max(largest_new, *edited);
                word &= word - 1;
                if word == 0 {
                    break;
                }
            }
            changed(block, largest_old, largest_new);
        }
    }

    /// The blocks with edited logits.
    pub fn touched(&self) -> &[u32] {
        &self.touched
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
