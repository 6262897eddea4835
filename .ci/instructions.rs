//! Runs one case on a fixed row with the AVX2 clone, so that `.ci/instructions.py` can count its instructions:
//! `instructions CASE REPEATS`. Without arguments it lists the cases.
//!
//! `.ci/vector_code.py` reads the clones in this binary too, which has all of them because it calls every recipe.

use std::fmt::Debug;
use std::hint::black_box;

use half::{bf16, f16};
use toksample::context::Context;
use toksample::isa::Isa;
use toksample::logit::Logit;
use toksample::logprobs::{Logprobs, Mode};
use toksample::params::Params;
use toksample::race::race;
use toksample::recipe::{self, Scratch};
use toksample::rng::{Draws, Place, Words};
use toksample::speculation::{self, Source};

/// The number of tokens of a row.
const V: usize = 262_144;
/// The random words of the draws.
const WORDS: Words = Words { draw: 0x9e37_79b9_7f4a_7c15, filter: 0, accept: u64::MAX, replace: 1 << 63 };

/// Runs a case, with the given number of repeats.
type Case = fn(usize);

const CASES: [(&str, Case); 55] = [
    ("argmax", |n| argmax(n, &typical())),
    ("argmax, float16", |n| argmax(n, &float16(typical()))),
    ("argmax, bfloat16", |n| argmax(n, &bfloat16(typical()))),
    ("sample top_k=50 top_p=0.9", |n| sample(n, &typical(), filters(0.7, 50, 0.9, 0.0))),
    ("sample top_k=50 top_p=0.9, float16", |n| sample(n, &float16(typical()), filters(0.7, 50, 0.9, 0.0))),
    ("sample top_k=50 top_p=0.9, bfloat16", |n| sample(n, &bfloat16(typical()), filters(0.7, 50, 0.9, 0.0))),
    ("sample top_p=0.9", |n| sample(n, &typical(), filters(0.7, 0, 0.9, 0.0))),
    ("sample temperature=1.5 top_p=0.9", |n| sample(n, &typical(), filters(1.5, 0, 0.9, 0.0))),
    ("sample", |n| sample(n, &typical(), filters(0.7, 0, 1.0, 0.0))),
    ("sample, float16", |n| sample(n, &float16(typical()), filters(0.7, 0, 1.0, 0.0))),
    ("sample, bfloat16", |n| sample(n, &bfloat16(typical()), filters(0.7, 0, 1.0, 0.0))),
    ("sample min_p=0.05", |n| sample(n, &typical(), filters(0.7, 0, 1.0, 0.05))),
    ("sample top_k=50 top_p=0.9, 16 logits", |n| sample(n, &typical()[..16], filters(0.7, 50, 0.9, 0.0))),
    ("softmax", |n| softmax(n, &typical())),
    ("softmax, float16", |n| softmax(n, &float16(typical()))),
    ("softmax, bfloat16", |n| softmax(n, &bfloat16(typical()))),
    ("log_softmax", |n| log_softmax(n, &typical())),
    ("log_softmax, float16", |n| log_softmax(n, &float16(typical()))),
    ("log_softmax, bfloat16", |n| log_softmax(n, &bfloat16(typical()))),
    ("top_k k=50", |n| top_k(n, &typical(), 50)),
    ("candidates top_p=0.9", |n| candidates(n, &typical(), filters(0.7, 0, 0.9, 0.0))),
    ("mask_logits top_p=0.9", |n| mask_logits(n, &typical(), filters(0.7, 0, 0.9, 0.0))),
    ("sample top_k=131072", |n| sample(n, &typical(), filters(0.7, V as u64 / 2, 1.0, 0.0))),
    ("sample temperature=2 top_p=0.9999, nearly flat", |n| sample(n, &nearly_flat(), filters(2.0, 0, 0.9999, 0.0))),
    ("sample top_p=0.9, all equal", |n| sample(n, &all_equal(), filters(0.7, 0, 0.9, 0.0))),
    ("top_k k=50, all equal", |n| top_k(n, &all_equal(), 50)),
    ("sample typical_p=0.9", |n| sample(n, &typical(), Params { typical_p: 0.9, ..filters(0.7, 0, 1.0, 0.0) })),
    ("sample epsilon_cutoff=0.001", |n| {
        sample(n, &typical(), Params { epsilon_cutoff: 0.001, ..filters(0.7, 0, 1.0, 0.0) })
    }),
    ("sample temperature=2 typical_p=0.9", |n| {
        sample(n, &typical(), Params { typical_p: 0.9, ..filters(2.0, 0, 1.0, 0.0) })
    }),
    ("sample eta_cutoff=0.001", |n| sample(n, &typical(), Params { eta_cutoff: 0.001, ..filters(0.7, 0, 1.0, 0.0) })),
    ("sample tfs=0.95", |n| sample(n, &typical(), Params { tfs: 0.95, ..filters(0.7, 0, 1.0, 0.0) })),
    ("sample mirostat=2", |n| sample(n, &typical(), Params { mirostat: 2, ..filters(0.7, 0, 1.0, 0.0) })),
    ("sample adaptive_target=0.3", |n| {
        sample(n, &typical(), Params { adaptive_target: 0.3, ..filters(0.7, 0, 1.0, 0.0) })
    }),
    ("sample min_p=0.02 adaptive_target=0.3", |n| {
        sample(n, &typical(), Params { adaptive_target: 0.3, ..filters(0.7, 0, 1.0, 0.02) })
    }),
    ("sample top_k=50 top_p=0.9, penalties", |n| {
        sample_in(n, &Context { output_ids: &history(), ..Context::default() })
    }),
    ("sample top_k=50 top_p=0.9, biases", |n| sample_in(n, &Context { biases: &biases(), ..Context::default() })),
    ("sample top_k=50 top_p=0.9, bitmask", |n| sample_in(n, &Context { bitmask: Some(&bits()), ..Context::default() })),
    ("sample top_k=50 top_p=0.9, few allowed", |n| {
        sample_in(n, &Context { bitmask: Some(&few()), ..Context::default() })
    }),
    ("sample logprobs=5", |n| sample_with_logprobs(n, filters(0.7, 0, 1.0, 0.0), false)),
    ("sample top_k=50 top_p=0.9 logprobs=5", |n| sample_with_logprobs(n, filters(0.7, 50, 0.9, 0.0), false)),
    ("sample top_k=50 top_p=0.9 logprobs=5, processed", |n| sample_with_logprobs(n, filters(0.7, 50, 0.9, 0.0), true)),
    ("score", |n| score(n, &typical())),
    ("score, bfloat16", |n| score(n, &bfloat16(typical()))),
    ("verify top_k=50 top_p=0.9, accepted", |n| verify(n, &typical(), filters(0.7, 50, 0.9, 0.0))),
    ("verify top_k=50 top_p=0.9, replaced", |n| verify(n, &reversed(), filters(0.7, 50, 0.9, 0.0))),
    ("verify, replaced", |n| verify(n, &reversed(), filters(0.7, 0, 1.0, 0.0))),
    ("race top_k=50 top_p=0.9", |n| run_race(n, filters(0.7, 50, 0.9, 0.0))),
    ("race", |n| run_race(n, filters(0.7, 0, 1.0, 0.0))),
    ("sample n=5 top_k=50 top_p=0.9", |n| sample_several(n, &typical(), filters(0.7, 50, 0.9, 0.0), true)),
    ("sample n=5", |n| sample_several(n, &typical(), filters(0.7, 0, 1.0, 0.0), true)),
    ("sample n=5, no replacement", |n| sample_several(n, &typical(), filters(0.7, 0, 1.0, 0.0), false)),
    ("replay of 50 tokens", |n| replay(n, &typical(), &history()[..50])),
    ("receipt", |n| receipt(n, &typical(), filters(0.7, 0, 1.0, 0.0))),
    ("receipt top_k=50 top_p=0.9", |n| receipt(n, &typical(), filters(0.7, 50, 0.9, 0.0))),
    ("receipt temperature=1.5 top_p=0.9", |n| receipt(n, &typical(), filters(1.5, 0, 0.9, 0.0))),
];

// ---- the rows --------------------------------------------------------------------------------------------------------

/// Has the shape of a model's logits: nearly normal with mean -4 and standard deviation 5, but with a heavier upper tail.
fn typical() -> Vec<f32> {
    normals().map(|z| 5.0 * z * (1.0 + z.max(0.0) / 20.0) - 4.0).collect()
}

/// The same logits for other tokens.
fn reversed() -> Vec<f32> {
    typical().into_iter().rev().collect()
}

fn nearly_flat() -> Vec<f32> {
    normals().map(|z| z / 100.0).collect()
}

fn all_equal() -> Vec<f32> {
    vec![1.0; V]
}

/// Nearly normal numbers, which are the same on every machine because they are sums of twelve uniform numbers.
fn normals() -> impl Iterator<Item = f32> {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..V).map(move |_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
}

fn float16(row: Vec<f32>) -> Vec<f16> {
    row.into_iter().map(f16::from_f32).collect()
}

fn bfloat16(row: Vec<f32>) -> Vec<bf16> {
    row.into_iter().map(bf16::from_f32).collect()
}

// ---- the inputs besides the row ----------------------------------------------------------------------------------------

/// A thousand token ids.
fn history() -> Vec<u32> {
    (1..=1000u32).map(|i| i.wrapping_mul(0x9e37_79b9) % V as u32).collect()
}

fn biases() -> Vec<(u32, f32)> {
    history().into_iter().take(20).map(|id| (id, 1.5)).collect()
}

/// A bitmask of scattered bits. About half of them are set, without long runs.
fn bits() -> Vec<u32> {
    (1..=V as u32 / 32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ i << 16).collect()
}

/// A bitmask that allows all tokens of one word in a thousand, and no others.
fn few() -> Vec<u32> {
    (0..V as u32 / 32).map(|i| if i % 1000 == 0 { u32::MAX } else { 0 }).collect()
}

// ---- the calls -------------------------------------------------------------------------------------------------------

fn argmax<T: Logit>(repeats: usize, row: &[T]) {
    repeat(repeats, |isa, scratch| recipe::argmax(isa, row, scratch));
}

fn sample<T: Logit>(repeats: usize, row: &[T], params: Params) {
    repeat(repeats, |isa, scratch| recipe::sample(isa, row, &params, &Context::default(), WORDS, scratch));
}

/// Verifies by rejection the most probable token of a draft, for the target `typical`.
fn verify(repeats: usize, draft: &[f32], params: Params) {
    let row = typical();
    let (target, draft) = (source(&row, params), source(draft, params));
    repeat(repeats, |isa, scratch| {
        let token = recipe::argmax(isa, draft.row, scratch)?;
        let part = draft.part(isa, token, scratch)?;
        speculation::next(isa, &target, &draft, token, part, scratch)
    });
}

fn run_race(repeats: usize, params: Params) {
    let row = typical();
    let place = Place { seed: 1, stream: 2, position: 3 };
    repeat(repeats, |isa, scratch| race(isa, &source(&row, params), place, scratch));
}

fn source(row: &[f32], params: Params) -> Source<'_, f32> {
    Source { row, params, context: Context::default(), words: WORDS }
}

/// Draws, and finds the interval of the token.
fn receipt<T: Logit>(repeats: usize, row: &[T], params: Params) {
    repeat(repeats, |isa, scratch| {
        recipe::sample_with_interval(isa, row, &params, &Context::default(), WORDS, scratch)
    });
}

/// Draws with penalties, for the history in the context.
fn sample_in(repeats: usize, context: &Context<'_>) {
    let (row, filters) = (typical(), filters(0.7, 50, 0.9, 0.0));
    let params = Params { repetition_penalty: 1.1, frequency_penalty: 0.1, ..filters };
    repeat(repeats, |isa, scratch| recipe::sample(isa, &row, &params, context, WORDS, scratch));
}

fn sample_with_logprobs(repeats: usize, params: Params, is_processed: bool) {
    let row = typical();
    let (mut logprob, mut rank, mut top_ids, mut top_logprobs) = (0.0, 0, [0; 5], [0.0; 5]);
    repeat(repeats, |isa, scratch| {
        let logprobs = Logprobs {
            mode: Mode { is_processed, is_logits: false },
            logprob: &mut logprob,
            rank: &mut rank,
            top_ids: &mut top_ids,
            top_logprobs: &mut top_logprobs,
            given_ids: &[],
            given_logprobs: &mut [],
        };
        let context = Context::default();
        recipe::sample_with_logprobs(isa, &row, None, &params, &context, WORDS, logprobs, scratch)
    });
}

fn score<T: Logit>(repeats: usize, row: &[T]) {
    repeat(repeats, |isa, scratch| recipe::score(isa, row, 12_345, 1.0, scratch));
}

fn sample_several<T: Logit>(repeats: usize, row: &[T], params: Params, replacement: bool) {
    let draws = Draws { seed: 1, stream: 0, position: 0, replacement };
    let mut tokens = [0; 5];
    repeat(repeats, |isa, scratch| {
        recipe::sample_several(isa, row, &params, &Context::default(), draws, &mut tokens, scratch).map(|()| tokens[4])
    });
}

fn replay<T: Logit>(repeats: usize, row: &[T], ids: &[u32]) {
    repeat(repeats, |isa, scratch| recipe::replay(isa, row, ids, ids[0], 0.7, scratch));
}

fn softmax<T: Logit>(repeats: usize, row: &[T]) {
    let mut out = vec![0.0; row.len()];
    repeat(repeats, |isa, scratch| recipe::softmax(isa, row, 0.7, &mut out, scratch).map(|()| out[0]));
}

fn log_softmax<T: Logit>(repeats: usize, row: &[T]) {
    let mut out = vec![0.0; row.len()];
    repeat(repeats, |isa, scratch| recipe::log_softmax(isa, row, 0.7, &mut out, scratch).map(|()| out[0]));
}

fn top_k<T: Logit>(repeats: usize, row: &[T], k: usize) {
    let (mut values, mut ids) = (vec![T::NEG_INFINITY; k], vec![0; k]);
    repeat(repeats, |isa, scratch| recipe::top_k(isa, row, &mut values, &mut ids, scratch).map(|()| ids[k - 1]));
}

fn candidates<T: Logit>(repeats: usize, row: &[T], params: Params) {
    repeat(repeats, |isa, scratch| {
        recipe::candidates(isa, row, &params, &Context::default(), WORDS, scratch).map(|(ids, _)| ids.len())
    });
}

fn mask_logits<T: Logit>(repeats: usize, row: &[T], params: Params) {
    let mut out = vec![T::NEG_INFINITY; row.len()];
    repeat(repeats, |isa, scratch| {
        recipe::mask_logits(isa, row, &params, &Context::default(), WORDS, &mut out, scratch).map(|()| out[0].to_f32())
    });
}

fn filters(temperature: f64, top_k: u64, top_p: f64, min_p: f64) -> Params {
    Params { temperature, top_k, top_p, min_p, ..Params::default() }
}

/// Repeats a call, reusing the scratch memory, and prints the last answer.
fn repeat<R: Debug>(repeats: usize, mut call: impl FnMut(Isa, &mut Scratch) -> R) {
    // The black box keeps the compiler from leaving out the other clones.
    let avx2 = Isa::available().into_iter().rfind(|isa| isa.name() != "avx512").expect("every CPU has one");
    let mut scratch = Scratch::default();
    let answer = (0..repeats).map(|_| call(black_box(avx2), &mut scratch)).last();
    println!("{answer:?}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => CASES.iter().for_each(|(name, _)| println!("{name}")),
        [case, repeats] => {
            let (_, run) = CASES.iter().find(|(name, _)| name == case).expect("one of the cases");
            run(repeats.parse().expect("a number of repeats"));
        }
        _ => panic!("usage: instructions [CASE REPEATS]"),
    }
}
