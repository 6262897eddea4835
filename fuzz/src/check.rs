//! Compares each operation with the oracle, bit for bit, on each instruction set of the CPU. A difference is a panic.
//!
//! All calls of one input share their scratch memory, to check that no call is disturbed by what an earlier one left there.

use half::{bf16, f16};
use toksample::context::Context;
use toksample::error::RowError;
use toksample::isa::Isa;
use toksample::params::Params;
use toksample::recipe::{self, Drawn, Scratch};
use toksample::rng::Words;

use crate::input::{self, Case, Element, LONG, Row, SHORT};
use crate::oracle;

/// A check that works with rows of any type.
trait Check {
    fn check<T: Element>(row: &[T], case: &Case);
}

/// `sample`, on short rows.
pub fn sample(bytes: &[u8]) {
    run::<Sample>(bytes, SHORT);
}

/// `candidates` and `mask_logits`, on short rows.
pub fn candidates(bytes: &[u8]) {
    run::<Candidates>(bytes, SHORT);
}

/// `softmax` and `log_softmax`, on short rows.
pub fn softmax(bytes: &[u8]) {
    run::<Softmax>(bytes, SHORT);
}

/// `top_k` and `argmax`, on short rows.
pub fn top_k(bytes: &[u8]) {
    run::<TopK>(bytes, SHORT);
}

/// One of these four, chosen by the input, on long rows.
pub fn long_rows(bytes: &[u8]) {
    run::<Any>(bytes, LONG);
}

fn run<C: Check>(bytes: &[u8], longest: usize) {
    match input::decode(bytes, longest) {
        None => {}
        Some((Row::F32(row), case)) => C::check::<f32>(&row, &case),
        Some((Row::F16(row), case)) => C::check::<f16>(&row, &case),
        Some((Row::Bf16(row), case)) => C::check::<bf16>(&row, &case),
    }
}

/// The oracle's version of a row that nothing changes.
fn plain<T: Element>(row: &[T]) -> Result<Vec<f32>, RowError> {
    edited(row, &Params::default(), &Context::default())
}

/// The oracle's version of a row that the parameters and the context change.
fn edited<T: Element>(row: &[T], params: &Params, context: &Context<'_>) -> Result<Vec<f32>, RowError> {
    let wide: Vec<f32> = row.iter().map(|x| x.to_f32()).collect();
    oracle::edited(&wide, params, context)
}

/// Returns the row if it has an answer. Otherwise checks that `run` returns the same error on each instruction set, and
/// returns None.
fn valid(row: Result<Vec<f32>, RowError>, run: impl Fn(Isa, &mut Scratch) -> Option<RowError>) -> Option<Vec<f32>> {
    let want = match row {
        Ok(row) => return Some(row),
        Err(error) => error,
    };
    for isa in Isa::available() {
        match (run(isa, &mut Scratch::default()), &want) {
            // NaN is not equal to itself.
            (Some(RowError::NotFinite { id, value }), RowError::NotFinite { id: want, value: wanted }) => {
                assert_eq!((id, value.is_nan()), (*want, wanted.is_nan()), "{}", isa.name());
            }
            (got, want) => assert_eq!(got.as_ref(), Some(want), "{}", isa.name()),
        }
    }
    None
}

fn bits<T: Element>(row: &[T]) -> Vec<u32> {
    row.iter().map(|x| x.raw()).collect()
}

/// The words of a draw. The one of the filters is made of the other one.
fn words(draw: u64) -> Words {
    Words { draw, filter: draw.rotate_left(29), ..Words::default() }
}

struct Sample;

impl Check for Sample {
    fn check<T: Element>(row: &[T], Case { params, edits, word, .. }: &Case) {
        let context = &edits.context();
        let sample = |isa, scratch: &mut Scratch| recipe::sample(isa, row, params, context, words(*word), scratch);
        let Some(wide) = valid(edited(row, params, context), |isa, scratch| sample(isa, scratch).err()) else { return };
        let want = oracle::sample(&wide, params, words(*word));
        let mut scratch = Scratch::default();
        for isa in Isa::available() {
            assert_eq!(sample(isa, &mut scratch), Ok(want.token), "{}, {params:?}, {edits:?}", isa.name());
            leave_other_changes(isa, row, params, context, &mut scratch);
            let drawn = recipe::sample_with_interval(isa, row, params, context, words(*word), &mut scratch);
            let line = |drawn: Drawn| (drawn.token, drawn.total, drawn.start, drawn.mass);
            assert_eq!(drawn.map(line), Ok(line(want)), "{}, {params:?}, {edits:?}", isa.name());
        }
    }
}

/// Makes a call on a different row with different changes, so that the scratch memory holds only values that are wrong for
/// the next call.
fn leave_other_changes<T: Element>(isa: Isa, row: &[T], params: &Params, context: &Context<'_>, scratch: &mut Scratch) {
    let Context { prompt_ids, output_ids, bitmask, .. } = *context;
    if bitmask.is_some() || !(prompt_ids.is_empty() && output_ids.is_empty()) {
        let other = Context { prompt_ids: output_ids, output_ids: prompt_ids, ..Context::default() };
        let _ = recipe::sample(isa, &row[..row.len().div_ceil(2)], params, &other, Words::default(), scratch);
    }
}

struct Candidates;

impl Check for Candidates {
    fn check<T: Element>(row: &[T], Case { params, edits, word, .. }: &Case) {
        let (context, words) = (&edits.context(), words(*word));
        let candidates = |isa, scratch: &mut Scratch| recipe::candidates(isa, row, params, context, words, scratch);
        let mask_logits = |isa, out: &mut [T], scratch: &mut Scratch| {
            recipe::mask_logits(isa, row, params, context, words, out, scratch)
        };
        let edited = edited(row, params, context);
        valid(edited.clone(), |isa, scratch| mask_logits(isa, &mut row.to_vec(), scratch).err());
        let Some(wide) = valid(edited, |isa, scratch| candidates(isa, scratch).err()) else { return };
        let (ids, masses) = oracle::survivors(&wide, params, words.filter);
        let total = masses.iter().sum::<u64>() as f64;
        let probs: Vec<f64> = masses.iter().map(|&mass| mass as f64 / total).collect();
        let mut masked = vec![T::NEG_INFINITY; row.len()];
        ids.iter().for_each(|&id| masked[id] = row[id]);
        let want = (ids.into_iter().map(|id| id as i64).collect::<Vec<_>>(), probs);
        let mut scratch = Scratch::default();
        for isa in Isa::available() {
            let of = || format!("{}, {params:?}, {edits:?}", isa.name());
            assert!(candidates(isa, &mut scratch).as_ref() == Ok(&want), "{}", of());
            let mut out = row.to_vec();
            assert_eq!(mask_logits(isa, &mut out, &mut scratch), Ok(()));
            assert!(bits(&out) == bits(&masked), "mask_logits, {}", of());
        }
    }
}

struct Softmax;

impl Check for Softmax {
    fn check<T: Element>(row: &[T], case: &Case) {
        let temperature = case.params.temperature;
        let mut out = vec![f32::NAN; row.len()];
        let error =
            |isa, scratch: &mut Scratch| recipe::log_softmax(isa, row, temperature, &mut out.clone(), scratch).err();
        valid(plain(row), error);
        let error =
            |isa, scratch: &mut Scratch| recipe::softmax(isa, row, temperature, &mut out.clone(), scratch).err();
        let Some(wide) = valid(plain(row), error) else { return };
        let (want, logs) = (oracle::softmax(&wide, temperature), oracle::log_softmax(&wide, temperature));
        let mut scratch = Scratch::default();
        for isa in Isa::available() {
            let of = format!("{}, temperature {temperature:?}", isa.name());
            out.fill(f32::NAN);
            assert_eq!(recipe::softmax(isa, row, temperature, &mut out, &mut scratch), Ok(()));
            assert!(bits(&out) == bits(&want), "softmax, {of}");
            out.fill(f32::NAN);
            assert_eq!(recipe::log_softmax(isa, row, temperature, &mut out, &mut scratch), Ok(()));
            assert!(bits(&out) == bits(&logs), "log_softmax, {of}");
        }
    }
}

struct TopK;

impl Check for TopK {
    fn check<T: Element>(row: &[T], case: &Case) {
        let k = case.k;
        let top_k = |isa, scratch: &mut Scratch| {
            let (mut values, mut ids) = (vec![T::NEG_INFINITY; k], vec![-1; k]);
            recipe::top_k(isa, row, &mut values, &mut ids, scratch).map(|()| (bits(&values), ids))
        };
        valid(plain(row), |isa, scratch| top_k(isa, scratch).err());
        let Some(wide) = valid(plain(row), |isa, scratch| recipe::argmax(isa, row, scratch).err()) else { return };
        let order = oracle::order(&wide);
        let values: Vec<u32> = order[..k].iter().map(|&id| row[id].raw()).collect();
        let ids: Vec<i64> = order[..k].iter().map(|&id| id as i64).collect();
        let mut scratch = Scratch::default();
        for isa in Isa::available() {
            assert!(top_k(isa, &mut scratch) == Ok((values.clone(), ids.clone())), "{}, k = {k}", isa.name());
            assert_eq!(recipe::argmax(isa, row, &mut scratch), Ok(order[0]), "{}", isa.name());
        }
    }
}

struct Any;

impl Check for Any {
    fn check<T: Element>(row: &[T], case: &Case) {
        match case.operation % 8 {
            0..=2 => Sample::check(row, case),
            3 | 4 => Candidates::check(row, case),
            5 => Softmax::check(row, case),
            _ => TopK::check(row, case),
        }
    }
}
