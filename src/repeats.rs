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
    /// At its beginning, the places of the reversed history, but for its first, from which on some tokens are also the first
    /// ones.
    places: Vec<u32>,
    /// How many places these are.
    matches: usize,
    /// For each of these places, how many tokens that are. What lies between them means nothing.
    lengths: Vec<u32>,
    /// The largest of these lengths.
    longest: u32,
}

/// A place of the history that is not its end, up to which some tokens are also the last ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    /// The token after this place.
    pub next: u32,
    /// How many tokens up to here are also the last ones: at least 1.
    pub length: u32,
}

impl Repeats {
    /// Looks at the history that consists of these two parts.
    pub fn find(&mut self, prompt_ids: &[u32], output_ids: &[u32]) -> Result<(), RowError> {
        let count = prompt_ids.len() + output_ids.len();
        let Repeats { reversed, places, matches, lengths, longest } = self;
        reversed.clear();
        reserve(reversed, count)?;
        reversed.extend(output_ids.iter().rev());
        reversed.extend(prompt_ids.iter().rev());
        for each in [&mut *lengths, &mut *places] {
            reserve(each, count)?;
            each.resize(count, 0);
        }
        (*matches, *longest) = find(reversed, lengths, places);
        Ok(())
    }

    /// The history from its last token to its first.
    pub fn reversed(&self) -> &[u32] {
        &self.reversed
    }

    /// The matches, from the end of the history to its beginning.
    pub fn matches(&self) -> impl ExactSizeIterator<Item = Match> {
        let Repeats { reversed, lengths, places, .. } = self;
        places[..self.matches].iter().map(|&place| {
            let place = place as usize;
            Match { next: reversed[place - 1], length: lengths[place] }
        })
    }

    /// The length of the longest match, or 0 if there is none.
    pub fn longest(&self) -> u32 {
        self.longest
    }
}

/// Writes the places to `places`, from its beginning, and their lengths to `lengths`. Both are as long as the history. Returns
/// how many places there are, and the largest length. This is a function of its own, so that the loops have all registers.
#[inline(never)]
fn find(reversed: &[u32], lengths: &mut [u32], places: &mut [u32]) -> (usize, u32) {
    let count = reversed.len().min(lengths.len()).min(places.len());
    let (reversed, lengths, places) = (&reversed[..count], &mut lengths[..count], &mut places[..count]);
    let Some(&last) = reversed.first() else { return (0, 0) };
    let (mut matches, mut longest) = (0, 0);
    // The match that reaches farthest, from `begin` to `end`: in it, everything is as it is at the beginning.
    let (mut begin, mut end) = (0, 0);
    let mut rest = 1..count;
    while end < count
        && let Some(place) = rest.next()
    {
        if reversed[place] != last {
            continue;
        }
        let mut length = if place < end { (lengths[place - begin] as usize).min(end - place) } else { 1 };
        // A match that ends before that one does is as long as the one that it repeats.
        if place + length >= end {
            while place + length < count && reversed[place + length] == reversed[length] {
                length += 1;
            }
            (begin, end) = (place, place + length);
            longest = longest.max(length);
        }
        lengths[place] = length as u32;
        places[matches] = place as u32;
        matches += 1;
    }
    // Once a match reaches the end of the history, there is nothing left to be compared.
    for place in rest {
        if reversed[place] == last {
            let (repeated, most) = (lengths[place - begin], (count - place) as u32);
            lengths[place] = repeated.min(most);
            if repeated >= most {
                begin = place;
            }
            places[matches] = place as u32;
            matches += 1;
        }
    }
    (matches, longest as u32)
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
                Match { next: history[place], length }
            });
            let naive: Vec<_> = naive.filter(|found| found.length > 0).collect();
            let longest = naive.iter().map(|one| one.length).max();
            assert_eq!(repeats.longest(), longest.unwrap_or(0), "{history:?}");
            assert_eq!(repeats.matches().collect::<Vec<_>>(), naive, "{history:?}");
        }
    }
}
