//! How many of the tokens before each token of the history are also the last ones of the history.
//!
//! ```text
//! history   a b c c b c y a b c
//! lengths   0 0 0 3 1 0 2 0 0 0      # before the second c stands a b c, and so it does before the next token
//! ```
//!
//! How it is fast: the Z-algorithm on the reversed history, which looks at each token once or twice (D. Gusfield, "Algorithms on
//! Strings, Trees, and Sequences", 1997, section 1.3).

use crate::error::{RowError, reserve};

/// The history, and what is repeated in it. The default is that of an empty history.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    reversed: Vec<u32>,
    /// For each place of the reversed history, and for its end: how many tokens from there on are also the first ones.
    lengths: Vec<u32>,
}

impl Repeats {
    /// Looks at the history that consists of these two parts.
    pub fn find(&mut self, prompt_ids: &[u32], output_ids: &[u32]) -> Result<(), RowError> {
        let count = prompt_ids.len() + output_ids.len();
        let Repeats { reversed, lengths } = self;
        reversed.clear();
        reserve(reversed, count)?;
        reversed.extend(output_ids.iter().rev());
        reversed.extend(prompt_ids.iter().rev());
        lengths.clear();
        reserve(lengths, count + 1)?;
        lengths.resize(count + 1, 0);
        // The match that ends last, and the place where it begins: within it, all is as it is at the beginning.
        let (mut begin, mut end) = (0, 0);
        for place in 1..count {
            let known = if place < end { (lengths[place - begin] as usize).min(end - place) } else { 0 };
            let rest = reversed[known..].iter().zip(&reversed[place + known..]);
            let length = known + rest.take_while(|(first, later)| first == later).count();
            if place + length > end {
                (begin, end) = (place, place + length);
            }
            lengths[place] = length as u32;
        }
        Ok(())
    }

    /// The history, from its last token to its first.
    pub fn reversed(&self) -> &[u32] {
        &self.reversed
    }

    /// For each token of the history, from the last one on: the token, and how many of the tokens before it are also the last
    /// ones.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.reversed.iter().copied().zip(self.lengths.iter().copied().skip(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_a_naive_search() {
        let (mut repeats, mut state) = (Repeats::default(), 1u64);
        for round in 0..2_000usize {
            let mut random = |below: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % below
            };
            let history: Vec<u32> = (0..round % 40).map(|_| random(1 + round as u64 % 4) as u32).collect();
            let (prompt_ids, output_ids) = history.split_at(random(history.len() as u64 + 1) as usize);
            repeats.find(prompt_ids, output_ids).unwrap();
            let naive = (0..history.len()).rev().map(|place| {
                let pairs = history[..place].iter().rev().zip(history.iter().rev());
                (history[place], pairs.take_while(|(a, b)| a == b).count() as u32)
            });
            assert_eq!(repeats.iter().collect::<Vec<_>>(), naive.collect::<Vec<_>>(), "{history:?}");
        }
    }
}
