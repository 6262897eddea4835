//! Each operation on a whole row, from the logits to the answer, compiled for every instruction set.
//!
//! A draw has these steps:
//!
//! 1. `Plain::read` or, if the bitmask, the biases or the penalties change anything, `Changed::read` finds the maxima of the
//!    blocks and of the row.
//! 2. The filters keep some of the tokens (`methods/`), which a search finds (`search/`).
//! 3. The draw goes through the tokens in the order of the ids.

use crate::changes::Changes;
use crate::context::{Context, Rules};
use crate::error::{RowError, reserve};
use crate::isa::{Isa, per_isa};
pub use crate::kernels::draw::{Drawn, Odds};
use crate::kernels::mass::{Mass, S};
use crate::kernels::order;
use crate::kernels::softmax::LogProbability;
use crate::kernels::{argmax, map, replay, softmax};
use crate::lanes::{BLOCK, GROUP};
use crate::logit::Logit;
use crate::logprobs::Logprobs;
use crate::methods::{self, Edit, smoothing};
use crate::params::Params;
use crate::rng::{Draws, Words};
use crate::row::{Changed, Plain, Row};
use crate::search::Search;

/// The tokens of a row that the parameters keep, the most probable first.
#[derive(Debug, Default)]
pub struct KeptSet {
    /// Their ids.
    pub ids: Vec<i64>,
    /// Their masses. The most probable token of the row has a mass of 2**41.
    pub masses: Vec<u64>,
}

impl KeptSet {
    /// Returns the mass of all of them.
    pub fn total(&self) -> u64 {
        self.masses.iter().sum()
    }
}

/// Memory that the recipes reuse from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The maximum of each block.
    maxima: Vec<f32>,
    /// The logits after smoothing, in a draw that smoothes them.
    smoothed: Vec<f32>,
    /// The logits of a kept set.
    gathered: Vec<f32>,
    changes: Changes,
    search: Search,
    /// The tokens for which all buffers are large enough.
    reserved: usize,
}

impl Scratch {
    /// Reserves what a row of `tokens` tokens may need at most, so that no buffer grows later: a `Vec` that cannot grow ends
    /// the process, and this is an error instead. What is reserved and not used takes no memory on most systems.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RowError> {
        if tokens > self.reserved {
            reserve(&mut self.maxima, tokens.div_ceil(BLOCK).next_multiple_of(GROUP))?;
            self.changes.reserve(tokens.div_ceil(BLOCK))?;
            self.search.reserve(tokens)?;
            self.reserved = tokens;
        }
        Ok(())
    }
}

per_isa! {
    /// Returns the lowest id among the largest logits.
    pub fn argmax<I: Vector, T: Logit>(row: &[T], scratch: &mut Scratch) -> Result<usize, RowError> {
        argmax::argmax(&Plain::<I, T>::read(row, &mut scratch.maxima)?)
    }
}

/// Returns the token that the random word draws from the tokens that the parameters keep.
pub fn sample<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    scratch: &mut Scratch,
) -> Result<usize, RowError> {
    let mut drawn = Drawn::only(0);
    keep_and(isa, row, params, context, words, Then::Draw(&mut drawn, false), scratch)?;
    Ok(drawn.token)
}

/// Returns the same token, with its interval of the mass line.
pub fn sample_with_interval<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    scratch: &mut Scratch,
) -> Result<Drawn, RowError> {
    let mut drawn = Drawn::only(0);
    keep_and(isa, row, params, context, words, Then::Draw(&mut drawn, true), scratch)?;
    Ok(drawn)
}

/// Returns the same token, and describes it. `raw` is the row as it is given, if `row` is an edited copy of it.
#[allow(clippy::too_many_arguments)]
pub fn sample_with_logprobs<T: Logit>(
    isa: Isa,
    row: &[T],
    raw: Option<&[T]>,
    params: &Params,
    context: &Context<'_>,
    words: Words,
    mut logprobs: Logprobs<'_>,
    scratch: &mut Scratch,
) -> Result<usize, RowError> {
    let is_as_given = raw.is_none() && !smoothing::is_on(params) && methods::changing(params, context).is_none();
    if logprobs.mode.is_processed || is_as_given {
        let mut token = 0;
        keep_and(isa, row, params, context, words, Then::Describe(&mut token, logprobs), scratch)?;
        return Ok(token);
    }
    let token = sample(isa, row, params, context, words, scratch)?;
    describe(isa, raw.unwrap_or(row), token, &mut logprobs, scratch)?;
    Ok(token)
}

per_isa! {
    /// Describes a token of a row as it is, at temperature 1.
    fn describe<I: Vector, T: Logit>(
        row: &[T], token: usize, logprobs: &mut Logprobs<'_>, scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Plain::<I, T>::read(row, maxima)?;
        search.describe_in_row(&row, token, None, logprobs)
    }
}

per_isa! {
    /// Returns the log-probability of a token, which the row must have, and its rank among all tokens of the row.
    pub fn score<I: Vector, T: Logit>(
        row: &[T], token: usize, temperature: f64, scratch: &mut Scratch,
    ) -> Result<(f64, usize), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Plain::<I, T>::read(row, maxima)?;
        let rank = search.rank(&row, token);
        if temperature == 0.0 {
            return Ok((if rank == 1 { 0.0 } else { f64::NEG_INFINITY }, rank));
        }
        let total = search.total(&row, Mass::new(row.maximum(), temperature));
        Ok((LogProbability::new(row.maximum(), temperature, total).of(row.logit(token)), rank))
    }
}

/// Fills `tokens` with tokens that are drawn one after another from those that the parameters keep. Without replacement, each
/// is drawn from what the draws before it have left; -1 stands where no token with a mass is left.
pub fn sample_several<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    draws: Draws,
    tokens: &mut [i64],
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    keep_and(isa, row, params, context, draws.words(0), Then::DrawSeveral(draws, tokens), scratch)
}

/// Returns the tokens that the parameters keep.
pub fn kept_set<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    scratch: &mut Scratch,
) -> Result<KeptSet, RowError> {
    let mut kept = KeptSet::default();
    keep_and(isa, row, params, context, words, Then::List(&mut kept), scratch)?;
    Ok(kept)
}

/// Returns the ids and probabilities of the tokens that the parameters keep, the most probable first.
pub fn candidates<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    scratch: &mut Scratch,
) -> Result<(Vec<i64>, Vec<f64>), RowError> {
    let kept = kept_set(isa, row, params, context, words, scratch)?;
    let total = kept.total() as f64;
    let mut probs = Vec::new();
    reserve(&mut probs, kept.masses.len())?;
    probs.extend(kept.masses.iter().map(|&mass| mass as f64 / total));
    Ok((kept.ids, probs))
}

/// Returns a token's part of the mass of the tokens that the parameters keep.
pub fn weigh<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    token: usize,
    scratch: &mut Scratch,
) -> Result<Odds, RowError> {
    let mut part = Odds::default();
    keep_and(isa, row, params, context, words, Then::Weigh(token, &mut part), scratch)?;
    Ok(part)
}

/// Returns the ids and masses of the tokens that the parameters keep, in the order of the ids.
pub fn masses<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    scratch: &mut Scratch,
) -> Result<Vec<(usize, u64)>, RowError> {
    let mut masses = Vec::new();
    keep_and(isa, row, params, context, words, Then::ListMasses(&mut masses), scratch)?;
    Ok(masses)
}

/// Fills `out` with the row as it is in memory, and with -inf in place of each token that the parameters drop.
pub fn mask_logits<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    out: &mut [T],
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    keep_and(isa, row, params, context, words, Then::Mask(out), scratch)
}

/// What to do with the tokens that the parameters keep.
enum Then<'a, T> {
    /// Draw one of them, and if this is true, also find its interval of the mass line.
    Draw(&'a mut Drawn, bool),
    /// Draw one of them, and describe it.
    Describe(&'a mut usize, Logprobs<'a>),
    /// Draw several of them.
    DrawSeveral(Draws, &'a mut [i64]),
    /// List them.
    List(&'a mut KeptSet),
    /// Find the part that a token has of their mass.
    Weigh(usize, &'a mut Odds),
    /// List their ids and masses, in the order of the ids.
    ListMasses(&'a mut Vec<(usize, u64)>),
    /// Write their logits to a row of -inf.
    Mask(&'a mut [T]),
}

/// Finds the tokens that the parameters keep, and does something with them.
fn keep_and<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    then: Then<'_, T>,
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    match smoothing::is_on(params) {
        true => keep_smoothed_and(isa, row, params, context, words, then, scratch),
        false => keep_of_logits_and(isa, row, params, context, words, then, scratch),
    }
}

/// Does the same with logits that are smoothed first, in a copy of the row. Nothing else is left to be changed in it.
#[cold]
fn keep_smoothed_and<T: Logit>(
    isa: Isa,
    row: &[T],
    params: &Params,
    context: &Context<'_>,
    words: Words,
    then: Then<'_, T>,
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    let mut smoothed = std::mem::take(&mut scratch.smoothed);
    reserve(&mut smoothed, row.len())?;
    smooth(isa, row, params, context, &mut smoothed, scratch)?;
    let xtc_exempt_token_ids = context.xtc_exempt_token_ids();
    let rules = (!xtc_exempt_token_ids.is_empty()).then(|| Rules { xtc_exempt_token_ids, ..Rules::default() });
    let context = Context { rules, ..Context::default() };
    let keep_and =
        |then, scratch: &mut Scratch| keep_of_logits_and::<f32>(isa, &smoothed, params, &context, words, then, scratch);
    match then {
        Then::Draw(drawn, with_interval) => keep_and(Then::Draw(drawn, with_interval), scratch)?,
        Then::Describe(token, logprobs) => keep_and(Then::Describe(token, logprobs), scratch)?,
        Then::DrawSeveral(draws, tokens) => keep_and(Then::DrawSeveral(draws, tokens), scratch)?,
        Then::List(kept) => keep_and(Then::List(kept), scratch)?,
        Then::Weigh(token, part) => keep_and(Then::Weigh(token, part), scratch)?,
        Then::ListMasses(masses) => keep_and(Then::ListMasses(masses), scratch)?,
        Then::Mask(out) => {
            let mut kept = KeptSet::default();
            keep_and(Then::List(&mut kept), scratch)?;
            out.fill(T::NEG_INFINITY);
            for id in kept.ids {
                out[id as usize] = row[id as usize];
            }
        }
    }
    scratch.smoothed = smoothed;
    Ok(())
}

per_isa! {
    /// Fills `smoothed` with the logits that are changed as the context says and then smoothed.
    fn smooth<I: Vector, T: Logit>(
        row: &[T], params: &Params, known: &Context<'_>, smoothed: &mut Vec<f32>, scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, changes, .. } = scratch;
        smoothed.clear();
        smoothed.resize(row.len(), 0.0);
        // A row that nothing changes is read in the same way, so that this code is there only once.
        let changing = methods::changing(params, known);
        let context = changing.unwrap_or_default();
        let find = |changes: &mut Changes| match changing {
            Some(_) => methods::find(params, known, row.len(), changes),
            None => Ok(()),
        };
        let edit = Edit::new(params);
        let row = Changed::<I, T>::read(row, &context, params.penalty_window, find, edit, maxima, changes)?;
        map::map(&row, smoothing::smooth(params, row.maximum()), smoothed);
        Ok(())
    }
}

per_isa! {
    /// Finds the tokens that the parameters keep, and does something with them. This is one function, because the filters are
    /// most of its code and would otherwise be compiled for each of these uses.
    fn keep_of_logits_and<I: Vector, T: Logit>(
        row: &[T], params: &Params, known: &Context<'_>, words: Words, then: Then<'_, T>, scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, changes, search, .. } = scratch;
        match methods::changing(params, known) {
            None => keep_of_row_and(Plain::<I, T>::read(row, maxima)?, params, words, &[], then, search),
            Some(context) => {
                let find = |changes: &mut Changes| methods::find(params, known, row.len(), changes);
                let edit = Edit::new(params);
                let row = Changed::<I, T>::read(row, &context, params.penalty_window, find, edit, maxima, changes)?;
                keep_of_row_and(row, params, words, known.xtc_exempt_token_ids(), then, search)
            }
        }
    }
}

#[inline(always)]
fn keep_of_row_and<R: Row>(
    row: R,
    params: &Params,
    words: Words,
    xtc_exempt: &[u32],
    then: Then<'_, R::Logit>,
    search: &mut Search,
) -> Result<(), RowError> {
    if params.temperature == 0.0 {
        let id = argmax::argmax(&row)?;
        match then {
            Then::Draw(drawn, _) => *drawn = Drawn::only(id),
            Then::Describe(token, mut logprobs) => {
                *token = id;
                match logprobs.mode.is_processed {
                    true => logprobs.describe_only(id, row.logit(id)),
                    false => search.describe_in_row(&row, id, None, &mut logprobs)?,
                }
            }
            Then::DrawSeveral(draws, tokens) => {
                tokens.fill(if draws.replacement { id as i64 } else { -1 });
                tokens.iter_mut().take(1).for_each(|first| *first = id as i64);
            }
            Then::List(kept) => *kept = KeptSet { ids: vec![id as i64], masses: vec![1 << S] },
            Then::Weigh(token, part) => *part = Odds { mass: u64::from(token == id) << S, total: 1 << S },
            Then::ListMasses(masses) => *masses = vec![(id, 1 << S)],
            Then::Mask(out) => {
                out.fill(R::Logit::NEG_INFINITY);
                out[id] = row.stored()[id];
            }
        }
        return Ok(());
    }
    let (mass, kept) = methods::keep(&row, params, words.filter, xtc_exempt, search)?;
    let kept = match then {
        Then::Draw(..) => kept, // which needs no list
        _ => search.reweigh_listed(&row, mass, kept),
    };
    match then {
        Then::Draw(drawn, with_interval) => {
            *drawn = search.draw(&row, mass, kept, words.draw, with_interval)?;
            if let Some(total) = search.before() {
                drawn.odds = Odds { mass: mass.of(row.logit(drawn.token)), total };
            }
        }
        Then::Describe(token, mut logprobs) => {
            *token = search.draw_and_describe(&row, mass, kept, words.draw, &mut logprobs)?;
        }
        Then::DrawSeveral(draws, tokens) => search.draw_several(&row, mass, kept, draws, tokens)?,
        Then::List(listed) => {
            let (keys, masses) = search.survivors(&row, mass, kept);
            reserve(&mut listed.ids, keys.len())?;
            reserve(&mut listed.masses, keys.len())?;
            for (&key, &mass) in keys.iter().zip(masses) {
                listed.ids.push(order::id(key) as i64);
                listed.masses.push(mass);
            }
            if listed.total() == 0 {
                return Err(RowError::Changed); // the tokens that are kept have a mass
            }
        }
        Then::Weigh(token, part) => {
            *part = Odds { mass: search.mass_of(&row, mass, kept, token), total: search.total_of(&row, mass, kept) };
            if part.total == 0 {
                return Err(RowError::Changed); // the tokens that are kept have a mass
            }
        }
        Then::ListMasses(listed) => {
            let (keys, masses) = search.survivors_by_id(&row, mass, kept);
            reserve(listed, keys.len())?;
            for (&key, &mass) in keys.iter().zip(masses) {
                listed.push((order::id(key), mass));
            }
        }
        Then::Mask(out) => search.mask(&row, kept, out),
    }
    Ok(())
}

/// Fills `out` with the probabilities of the row. At temperature 0 the probability of the argmax is 1.
pub fn softmax<T: Logit>(
    isa: Isa,
    row: &[T],
    temperature: f64,
    out: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    probabilities(isa, row, temperature, false, out, scratch)
}

/// Fills `out` with the natural logarithms of the probabilities.
pub fn log_softmax<T: Logit>(
    isa: Isa,
    row: &[T],
    temperature: f64,
    out: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    probabilities(isa, row, temperature, true, out, scratch)
}

per_isa! {
    /// Fills `out` with the probabilities, or with their logarithms.
    fn probabilities<I: Vector, T: Logit>(
        row: &[T], temperature: f64, is_log: bool, out: &mut [f32], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Plain::<I, T>::read(row, maxima)?;
        if temperature == 0.0 {
            let (others, one) = if is_log { (f32::NEG_INFINITY, 0.0) } else { (0.0, 1.0) };
            out.fill(others);
            out[argmax::argmax(&row)?] = one;
            return Ok(());
        }
        let mass = Mass::new(row.maximum(), temperature);
        if is_log {
            let log_probability = LogProbability::new(row.maximum(), temperature, search.total(&row, mass));
            softmax::log_softmax(&row, log_probability, out);
        } else {
            softmax::softmax(&row, mass, out);
        }
        Ok(())
    }
}

per_isa! {
    /// Returns the log-probability of a token among those with the given ids, as if all others were banned. These must be ids
    /// of the row, each only once. No other logit is read.
    pub fn replay<I: Vector, T: Logit>(
        row: &[T], ids: &[u32], token: u32, temperature: f64, scratch: &mut Scratch,
    ) -> Result<f64, RowError> {
        replay::replay::<I, T>(row, ids, token, temperature, &mut scratch.gathered)
    }
}

per_isa! {
    /// Fills `values` and `ids`, which must have the same length k, at most that of the row, with the k largest logits and
    /// their ids, in the total order.
    pub fn top_k<I: Vector, T: Logit>(
        row: &[T], values: &mut [T], ids: &mut [i64], scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let Scratch { maxima, search, .. } = scratch;
        let row = Plain::<I, T>::read(row, maxima)?;
        let k = values.len();
        if k == 0 {
            return Ok(());
        }
        for ((value, id), &key) in values.iter_mut().zip(ids).zip(search.top_k(&row, k)?) {
            *id = order::id(key) as i64;
            *value = row.stored()[order::id(key)];
        }
        Ok(())
    }
}

/// Tests what `kernels/mod.rs` promises for a row that another thread writes to: every recipe ends, with an answer or an
/// error. Here the row changes under the kernels without a race, because a logit sometimes has another value when it is read.
#[cfg(test)]
mod changing_rows {
    use std::cell::Cell;

    use super::*;
    use crate::isa::Vector;
    use crate::lanes::LANES;
    use crate::logprobs::Mode;
    use crate::race::race;
    use crate::rng::Place;
    use crate::speculation::{self, Source};
    use crate::steps::{Step, Steps};

    thread_local! {
        /// The state of a random generator, and in how many reads a logit changes once on average.
        static RANDOM: Cell<(u64, u64)> = const { Cell::new((1, 1)) };
    }

    /// Returns a random number below `below`.
    fn random(below: u64) -> u64 {
        RANDOM.with(|random| {
            let (mut x, seldom) = random.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            random.set((x, seldom));
            (x >> 16) % below
        })
    }

    #[derive(Clone, Copy)]
    struct Fickle(f32);

    impl Logit for Fickle {
        const NEG_INFINITY: Self = Fickle(f32::NEG_INFINITY);
        fn to_f32(self) -> f32 {
            // -inf also pads the last block, which is in memory that nobody else can write to.
            if self.0 == f32::NEG_INFINITY || random(RANDOM.get().1) != 0 {
                return self.0;
            }
            // The changes are small, because the sums of masses overflow far above the maximum that was seen. They wrap around
            // in a release build, but this build checks for overflow. tests/test_soundness.py has no such limit.
            [f32::NAN, f32::NEG_INFINITY, self.0 - 2.0, self.0 - 0.1, self.0 + 0.5][random(5) as usize]
        }

        fn lanes<I: Vector>(block: &[Self; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
            I::lanes(&block.map(Fickle::to_f32), nan)
        }
    }

    /// Draws with log-probabilities of some tokens.
    fn describe_some(
        isa: Isa,
        row: &[Fickle],
        params: &Params,
        context: &Context<'_>,
        words: Words,
        scratch: &mut Scratch,
    ) -> Result<usize, RowError> {
        let (mut logprob, mut rank, top) = (0.0, 0, row.len().min(5));
        let (mut top_ids, mut top_logprobs, given_ids) = (vec![0; top], vec![0.0; top], [0, row.len() as i64 - 1]);
        let mut given_logprobs = [0.0; 2];
        let logprobs = Logprobs {
            mode: Mode { is_processed: random(2) == 1, is_logits: random(4) == 1 },
            logprob: &mut logprob,
            rank: &mut rank,
            top_ids: &mut top_ids,
            top_logprobs: &mut top_logprobs,
            given_ids: &given_ids,
            given_logprobs: &mut given_logprobs,
        };
        sample_with_logprobs(isa, row, None, params, context, words, logprobs, scratch)
    }

    #[test]
    fn every_recipe_ends_with_an_answer_or_an_error() {
        let (mut answers, mut changes) = (0, 0);
        let mut scratch = Scratch::default();
        let steps: Vec<Step> = {
            let (edits, filters): (Vec<Step>, Vec<Step>) = Step::ALL.iter().rev().partition(|step| step.is_edit());
            [edits, filters].concat()
        };
        for (size, rounds) in [(1u64, 100), (64, 100), (200, 100), (5_000, 30), (40_000, 6)] {
            for round in 0..rounds {
                RANDOM.set((round * 2 + 1, [size.div_ceil(4), size, size * 4][round as usize % 3]));
                let spread = [0.0, 1.0, 8.0][random(3) as usize];
                let row: Vec<Fickle> =
                    (0..size).map(|_| Fickle((random(1 << 20) as f32 / (1 << 19) as f32 - 1.0) * spread)).collect();
                scratch.reserve(row.len()).unwrap();
                let k = row.len().div_ceil(2);
                let mut count = |error: Option<RowError>| match error {
                    None => answers += 1,
                    Some(RowError::Changed) => changes += 1,
                    Some(RowError::NotFinite { .. } | RowError::Empty) => (),
                    Some(RowError::OutOfMemory) => panic!("not enough memory"),
                };
                let isa = *Isa::available().last().unwrap();
                let ids = [0, 1, row.len() as u32 - 1];
                let kept: Vec<u32> = (0..row.len() as u32).step_by(3).collect();
                let (words, biases) =
                    (vec![0xf0f0_ffff; row.len().div_ceil(32)], [(0, 1.0), (row.len() as u32 / 2, -3.0)]);
                let rules = Rules {
                    suppress_tokens: &[1],
                    eos_token_ids: &ids,
                    xtc_exempt_token_ids: &ids,
                    ..Rules::default()
                };
                let changed = Context {
                    biases: &biases,
                    prompt_ids: &ids,
                    output_ids: &ids,
                    bitmask: Some(&words),
                    rules: Some(rules),
                };
                let params = [
                    Params { temperature: 0.0, ..Params::default() },
                    Params { temperature: 0.7, ..Params::default() },
                    Params { temperature: 0.7, top_p: 0.9, ..Params::default() },
                    Params { temperature: 5.0, top_p: 0.9, ..Params::default() },
                    Params { temperature: 5.0, top_p: 0.0, ..Params::default() },
                    Params { temperature: 5.0, top_k: k as u64, top_p: 0.999, ..Params::default() },
                    Params { top_k: 50, top_p: 0.9, min_p: 0.1, ..Params::default() },
                    Params { temperature: 5.0, min_p: 1e-9, ..Params::default() },
                    Params { temperature: 2.0, typical_p: 0.5, repetition_penalty: 1.5, ..Params::default() },
                    Params { temperature: 2.0, typical_p: 0.9, top_p: 0.99, ..Params::default() },
                    Params { temperature: 2.0, epsilon_cutoff: 1e-4, ..Params::default() },
                    Params { temperature: 5.0, typical_p: 0.9, epsilon_cutoff: 1e-9, top_a: 1.0, ..Params::default() },
                    Params { temperature: 5.0, top_k: k as u64, top_a: 0.2, ..Params::default() },
                    Params { temperature: 5.0, xtc_probability: 1.0, xtc_threshold: 1e-9, ..Params::default() },
                    Params { temperature: 2.0, dynatemp_range: 1.0, top_k: k as u64, ..Params::default() },
                    Params { temperature: 3.0, mirostat: 1, mirostat_mu: Some(9.0), ..Params::default() },
                    Params { temperature: 3.0, mirostat: 2, top_p: 0.99, ..Params::default() },
                    Params { temperature: 2.0, adaptive_target: 0.3, top_p: 0.99, ..Params::default() },
                    Params { adaptive_target: 0.0, xtc_probability: 0.5, xtc_threshold: 0.01, ..Params::default() },
                    Params { smoothing_factor: 0.2, smoothing_curve: 1.5, typical_p: 0.5, ..Params::default() },
                    Params { top_k: k as u64, xtc_probability: 0.5, xtc_threshold: 0.01, ..Params::default() },
                    Params {
                        temperature: 0.1,
                        top_k: k as u64,
                        top_p: 0.9,
                        typical_p: 0.5,
                        xtc_probability: 1.0,
                        min_tokens_to_keep: 3,
                        order: Steps::new(&steps),
                        ..Params::default()
                    },
                    Params { dry_multiplier: 1.0, encoder_repetition_penalty: 1.5, ..Params::default() },
                    Params { temperature: 2.0, no_repeat_ngram_size: 3, min_new_tokens: 9, ..Params::default() },
                    Params { temperature: 5.0, top_n_sigma: 1.5, ..Params::default() },
                    Params { temperature: 5.0, top_k: k as u64, top_n_sigma: 0.7, ..Params::default() },
                    Params { temperature: 5.0, eta_cutoff: 1e-3, tfs: 0.9, ..Params::default() },
                    Params { temperature: 2.0, typical_p: 0.9, eta_cutoff: 1e-4, ..Params::default() },
                    Params { temperature: 2.0, tfs: 0.95, top_h: 0.5, ..Params::default() },
                    Params { temperature: 5.0, top_k: k as u64, tfs: 0.99, ..Params::default() },
                    Params { temperature: 5.0, min_p: 0.01, top_h: 1.0, ..Params::default() },
                ];
                let (mut wide, mut out) = (vec![0.0; row.len()], row.clone());
                for params in params {
                    for context in [Context::default(), changed] {
                        let [draw, filter, accept, replace] = [(); 4].map(|()| random(1 << 40) << 24);
                        let words = Words { draw, filter, accept, replace };
                        count(sample_with_interval(isa, &row, &params, &context, words, &mut scratch).err());
                        count(describe_some(isa, &row, &params, &context, words, &mut scratch).err());
                        count(candidates(isa, &row, &params, &context, words, &mut scratch).err());
                        for replacement in [true, false] {
                            let draws = Draws { seed: round, stream: 0, position: 0, replacement };
                            let mut tokens = [0; 5];
                            count(sample_several(isa, &row, &params, &context, draws, &mut tokens, &mut scratch).err());
                        }
                        let source = Source { row: &row, params, context, words };
                        let part = Odds { mass: 1 << S, total: 1 << S };
                        count(speculation::next(isa, &source, &source, 0, part, &mut scratch).err());
                        count(speculation::next_after(isa, &source, &mut scratch).err());
                        let place = Place { seed: draw, stream: filter, position: accept };
                        count(race(isa, &source, place, &mut scratch).err());
                        count(mask_logits(isa, &row, &params, &context, words, &mut out, &mut scratch).err());
                    }
                    count(score(isa, &row, row.len() / 2, params.temperature, &mut scratch).err());
                    count(replay(isa, &row, &kept, 0, params.temperature, &mut scratch).err());
                    count(softmax(isa, &row, params.temperature, &mut wide, &mut scratch).err());
                    count(log_softmax(isa, &row, params.temperature, &mut wide, &mut scratch).err());
                }
                for k in [1, k] {
                    count(top_k(isa, &row, &mut out[..k], &mut vec![0; k], &mut scratch).err());
                }
                count(argmax(isa, &row, &mut scratch).err());
            }
        }
        assert!(answers > 1000 && changes > 100, "{answers} answers, {changes} changes seen");
    }
}
