//! Where in the history its last tokens stand as well.
//!
//! ```text
//! history   a b c c b c y a b c
//! matches         3 1   2            # so many tokens up to here are also the last ones of the history
//! ```
//!
//! How it is fast: the Z-algorithm on the reversed history looks at each token once or twice, whatever the history (D.
//! Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997, section 1.3). In most texts few tokens are equal to the last
//! one, and only these are looked at again.

use crate::error::{RowError, reserve};

/// The history, and its matches. The default is that of an empty history.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// The history from its last token to its first.
    reversed: Vec<u32>,
    matches: Vec<Match>,
    /// For each place of the reversed history, how many tokens from there on are also the first ones.
    lengths: Vec<u32>,
}

/// A place of the history that is not its end, up to which some tokens are also the last ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    /// The token after this place.
    pub next: u32,
    /// How many tokens of the history come after this place.
    pub distance: u32,
    /// How many tokens up to here are also the last ones: at least 1.
    pub length: u32,
}

impl Repeats {
    /// Looks at the history that consists of these two parts.
    pub fn find(&mut self, prompt_ids: &[u32], output_ids: &[u32]) -> Result<(), RowError> {
        let count = prompt_ids.len() + output_ids.len();
        let Repeats { reversed, matches, lengths } = self;
        reversed.clear();
        reserve(reversed, count)?;
        reversed.extend(output_ids.iter().rev());
        reversed.extend(prompt_ids.iter().rev());
        lengths.clear();
        reserve(lengths, count)?;
        lengths.resize(count, 0);
        matches.clear();
        reserve(matches, count)?;
        let Some(&last) = reversed.first() else { return Ok(()) };
        // The match that reaches farthest, from `begin` to `end`: in it, everything is as it is at the beginning.
        let (mut begin, mut end) = (0, 0);
        for place in 1..count {
            if reversed[place] != last {
                continue;
            }
            let mut length = if place < end { (lengths[place - begin] as usize).min(end - place) } else { 1 };
            while place + length < count && reversed[place + length] == reversed[length] {
                length += 1;
            }
            if place + length > end {
                (begin, end) = (place, place + length);
            }
            lengths[place] = length as u32;
            matches.push(Match { next: reversed[place - 1], distance: place as u32, length: length as u32 });
        }
        Ok(())
    }

    /// The history from its last token to its first.
    pub fn reversed(&self) -> &[u32] {
        &self.reversed
    }

    /// The matches, from the end of the history to its beginning.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_those_of_a_naive_search() {
        let (mut repeats, mut state) = (Repeats::default(), 1u64);
        for round in 0..2_000usize {
            let mut random = |below: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % below
            };
            let history: Vec<u32> = (0..round % 40).map(|_| random(1 + round as u64 % 4) as u32).collect();
            let (prompt_ids, output_ids) = history.split_at(random(history.len() as u64 + 1) as usize);
            repeats.find(prompt_ids, output_ids).unwrap();
            let naive = (1..history.len()).rev().map(|place| {
                let pairs = history[..place].iter().rev().zip(history.iter().rev());
                let length = pairs.take_while(|(a, b)| a == b).count() as u32;
                Match { next: history[place], distance: (history.len() - place) as u32, length }
            });
            let naive: Vec<_> = naive.filter(|found| found.length > 0).collect();
            assert_eq!(repeats.matches(), naive, "{history:?}");
        }
    }
}
