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
    if size == 0 {
        return;
    }
    for (token, length) in repeats.iter() {
        if u64::from(length) + 1 >= size {
            ban(token);
        }
    }
}
