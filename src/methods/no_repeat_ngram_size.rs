//! No repeated n-grams: bans each token that would complete a sequence of n tokens that is in the history already.
//!
//! ```text
//! ngrams = sliding_window_view(history, n)
//! row[ngrams[(ngrams[:, :-1] == history[-(n - 1):]).all(axis=1), -1]] = -np.inf
//! ```
//!
//! R. Paulus, C. Xiong, R. Socher, "A deep reinforced model for abstractive summarization", ICLR 2018; as in fairseq and
//! transformers.
//!
//! Edge rules: 1 bans every token of the history. 0 is off.

use crate::repeats::Repeats;

pub(super) fn find(size: u64, repeats: &Repeats, mut ban: impl FnMut(u32)) {
    match size {
        0 => (),
        1 => repeats.reversed().iter().for_each(|&id| ban(id)),
        _ => {
            let found = repeats.matches().filter(|found| u64::from(found.length) + 1 >= size);
            found.for_each(|found| ban(found.next));
        }
    }
}
