//! Turns the fuzzer's bytes into a row of logits, parameters, a context and a random word.
//!
//! Every sequence of bytes is an input. The first 32 bytes are a header whose fields have fixed places. If the last of them is
//! odd, the next 30 bytes are a second header, with the penalties, biases, token ids and bitmask that change the row. If its
//! second bit is set, the next 49 bytes are another header, with the other filters. If its third bit is set, the edits have
//! another order. The rest are commands that append to the row. Most values of a field stand for something that is hard for a
//! sampler, so that random bytes make hard rows: ties, banned blocks, subnormals, adjacent floats, and lengths around multiples
//! of a block.

use std::collections::HashSet;

use half::{bf16, f16};
use toksample::context::Context;
use toksample::logit::Logit;
use toksample::params::Params;
use toksample::steps::{Step, Steps};

/// The longest row of the targets for short rows: four blocks and a bit.
pub const SHORT: usize = 4 * 64 + 17;

/// The longest row of the target for long rows.
pub const LONG: usize = 20_000;

/// The contents of the headers.
pub struct Case {
    pub params: Params,
    pub edits: Edits,
    pub word: u64,
    /// The k of the function `top_k`, from 1 to the length of the row.
    pub k: usize,
    /// Chooses the operation, for a target that has several.
    pub operation: u8,
}

/// The parts of a context.
#[derive(Debug)]
pub struct Edits {
    biases: Vec<(u32, f32)>,
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    bitmask: Option<Vec<u32>>,
}

impl Edits {
    pub fn context(&self) -> Context<'_> {
        let Edits { biases, prompt_ids, output_ids, bitmask } = self;
        Context { biases, prompt_ids, output_ids, bitmask: bitmask.as_deref(), rules: None }
    }
}

/// A row of one of the types.
pub enum Row {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A type of logit, and its bits.
pub trait Element: Logit {
    /// All bits of the exponent. They are set in NaN and in the infinities.
    const EXPONENT: u32;
    /// The number of bytes of a value.
    const BYTES: usize;

    fn from_raw(bits: u32) -> Self;
    fn raw(self) -> u32;
    fn nearest(x: f32) -> Self;
}

impl Element for f32 {
    const EXPONENT: u32 = 0x7f80_0000;
    const BYTES: usize = 4;

    fn from_raw(bits: u32) -> Self {
        f32::from_bits(bits)
    }

    fn raw(self) -> u32 {
        self.to_bits()
    }

    fn nearest(x: f32) -> Self {
        x
    }
}

impl Element for f16 {
    const EXPONENT: u32 = 0x7c00;
    const BYTES: usize = 2;

    fn from_raw(bits: u32) -> Self {
        f16::from_bits(bits as u16)
    }

    fn raw(self) -> u32 {
        u32::from(self.to_bits())
    }

    fn nearest(x: f32) -> Self {
        f16::from_f32(x)
    }
}

impl Element for bf16 {
    const EXPONENT: u32 = 0x7f80;
    const BYTES: usize = 2;

    fn from_raw(bits: u32) -> Self {
        bf16::from_bits(bits as u16)
    }

    fn raw(self) -> u32 {
        u32::from(self.to_bits())
    }

    fn nearest(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

/// The bytes that are left. When there are none, reading returns zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.unsigned(1) as u8
    }

    /// Reads an integer of this many bytes, the lowest first.
    fn unsigned(&mut self, bytes: usize) -> u64 {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }
}

/// Decodes an input. Returns None if a parameter is out of range. The row has at most `longest` logits.
pub fn decode(bytes: &[u8], longest: usize) -> Option<(Row, Case)> {
    let (header, commands) = bytes.split_at(bytes.len().min(32));
    let second = if header.get(31).is_some_and(|last| last % 2 == 1) { 30 } else { 0 };
    let third = if header.get(31).is_some_and(|last| last & 2 != 0) { 49 } else { 0 };
    let is_reordered = header.get(31).is_some_and(|last| last & 4 != 0);
    let (edits, commands) = commands.split_at(commands.len().min(second));
    let (filters, commands) = commands.split_at(commands.len().min(third));
    let (mut header, mut edits) = (Bytes(header), Bytes(edits));
    let flags = header.byte();
    // Only one input in eight may have NaN and +inf, because a row that has one is refused, and tests nothing else.
    let finite = !(flags / 3).is_multiple_of(8);
    let row = match flags % 3 {
        0 => Row::F32(row(commands, longest, finite)),
        1 => Row::F16(row(commands, longest, finite)),
        _ => Row::Bf16(row(commands, longest, finite)),
    };
    let size = match &row {
        Row::F32(row) => row.len(),
        Row::F16(row) => row.len(),
        Row::Bf16(row) => row.len(),
    };
    let operation = header.byte();
    let word = header.unsigned(8);
    let raw = header.unsigned(8); // for parameters that may be any float64
    let mut params = Params {
        temperature: temperature(header.byte(), header.unsigned(2), raw),
        top_k: count(header.byte(), header.unsigned(2), size),
        top_p: share(header.byte(), header.unsigned(2), size, raw, 1.0),
        min_p: share(header.byte(), header.unsigned(2), size, raw, 0.0),
        typical_p: share(edits.byte(), edits.unsigned(2), size, raw, 1.0),
        repetition_penalty: factor(edits.byte(), edits.unsigned(2), raw),
        frequency_penalty: term(edits.byte(), edits.unsigned(2), raw),
        presence_penalty: term(edits.byte(), edits.unsigned(2), raw),
        ..Params::default()
    };
    let (window, words) = ([edits.byte().into(), edits.unsigned(2)], [edits.byte().into(), edits.unsigned(2)]);
    let edits = Edits {
        bitmask: bitmask(words[0] as u8, words[1], size),
        biases: biases(&mut edits, size, longest),
        prompt_ids: token_ids(&mut edits, size, longest),
        output_ids: token_ids(&mut edits, size, longest),
    };
    params.penalty_window = count(window[0] as u8, window[1], edits.prompt_ids.len() + edits.output_ids.len());
    set_filters(&mut params, &mut Bytes(filters), size, raw);
    params.order = if is_reordered { order_of_edits(raw) } else { None };
    params.validate().ok()?;
    let k = (count(header.byte(), raw & 0xffff, size) as usize).min(size);
    Some((row, Case { params, edits, word, k, operation }))
}

/// The default order, but for the edits, which are shuffled.
fn order_of_edits(mut state: u64) -> Option<Steps> {
    let mut steps = Step::EDITS.to_vec();
    for last in (1..steps.len()).rev() {
        steps.swap(last, (random(&mut state) % (last as u64 + 1)) as usize);
    }
    steps.extend(Steps::DEFAULT.filters());
    Steps::new(&steps)
}

/// Sets the filters of the third header. The first two bytes say which are on, so that many inputs have only a few.
fn set_filters(params: &mut Params, bytes: &mut Bytes, size: usize, raw: u64) {
    let on = bytes.unsigned(2);
    let mut share = |filter: u32, off: f64| {
        let (kind, value) = (bytes.byte(), bytes.unsigned(2));
        if on >> filter & 1 == 1 { share(kind, value, size, raw, off) } else { off }
    };
    let [epsilon_cutoff, top_a, eta_cutoff, top_h] = [0, 1, 2, 3].map(|filter| share(filter, 0.0));
    let tfs = share(4, 1.0);
    let (xtc_probability, xtc_threshold) = (share(5, 0.0), share(5, 0.1));
    // These are in other ranges.
    let top_n_sigma = share(6, 0.0) * 4.0;
    let (dynatemp_range, dynatemp_exponent) = (share(7, 0.0) * 2.0, share(7, 0.5) * 2.0);
    let (smoothing_factor, smoothing_curve) = (share(8, 0.0), 1.0 + 2.0 * share(8, 0.0));
    let (adaptive_target, adaptive_average) = (share(9, -1.0), share(9, 0.5));
    let (kind, value) = (bytes.byte(), bytes.unsigned(2));
    *params = Params {
        epsilon_cutoff,
        top_a,
        eta_cutoff,
        top_n_sigma,
        tfs,
        top_h,
        xtc_probability,
        xtc_threshold,
        dynatemp_range,
        dynatemp_exponent,
        smoothing_factor,
        smoothing_curve,
        adaptive_target,
        adaptive_average: Some(adaptive_average),
        mirostat: if on >> 10 & 1 == 1 { 1 + on % 2 } else { 0 },
        mirostat_mu: Some(f64::from(bytes.unsigned(2) as i16) / 1024.0), // from -32 to 32
        min_tokens_to_keep: if on >> 11 & 1 == 1 { count(kind, value, size) } else { 1 },
        ..*params
    };
}

fn temperature(kind: u8, value: u64, raw: u64) -> f64 {
    const HARD: [f64; 12] = [0.0, 1e-30, 1e-10, 0.001, 0.3, 0.7, 1.0, 1.5, 2.0, 100.0, 1000.0, 1e30];
    match kind % 16 {
        12 => f64::from_bits(raw).abs(),
        13..=15 => (value as f64 / 65536.0 + 1.0) * f64::from(1 << (kind >> 4)) / 4096.0, // 2**-12 to 16
        at => HARD[usize::from(at)],
    }
}

fn count(kind: u8, value: u64, size: usize) -> u64 {
    let size = size as u64;
    match kind % 8 {
        0 | 1 => 0,
        2 => 1 + value % 6, // no more than the number of blocks of a short row
        3 => size.saturating_sub(1 + value % 2),
        4 => size + value % 2,
        5 => u64::MAX - value % 2,
        6 => value % 64,
        _ => value % (size + 2),
    }
}

/// A parameter between 0 and 1; `off` is the value at which the filter does nothing.
fn share(kind: u8, value: u64, size: usize, raw: u64, off: f64) -> f64 {
    const HARD: [f64; 9] =
        [0.05, 0.1, 0.25, 0.5, 0.9, 0.95, 5e-324, 1.0 - 1.0 / (1u64 << 41) as f64, 1.0 - f64::EPSILON / 2.0];
    match kind % 16 {
        0..=2 => off,
        3 => f64::from_bits(raw),
        4 => (value as f64 + 1.0) / 65536.0,
        5 => (1 + value as usize % size.max(1)) as f64 / size.max(1) as f64, // a share that equal tokens reach exactly
        6 => 1.0 / (1u64 << (value % 45)) as f64,
        at => HARD[usize::from(at - 7)],
    }
}

/// A repetition penalty.
fn factor(kind: u8, value: u64, raw: u64) -> f64 {
    // As a float32, the last two are 1 and a neighbour of 1.
    const HARD: [f64; 8] = [1.1, 1.3, 2.0, 0.5, 1e-30, 1e30, 1.0 + 1e-9, 1.0 + f32::EPSILON as f64];
    match kind % 16 {
        0..=3 => 1.0,
        4 => f64::from_bits(raw).abs(),
        5..=7 => (value as f64 + 1.0) / 16384.0, // up to 4
        at => HARD[usize::from(at - 8)],
    }
}

/// A frequency penalty or a presence penalty.
fn term(kind: u8, value: u64, raw: u64) -> f64 {
    const HARD: [f64; 8] = [0.5, -0.5, 2.0, -2.0, 1e30, -1e30, 1e-45, 1e-300];
    match kind % 16 {
        0..=3 => 0.0,
        4 => f64::from_bits(raw),
        5 => f64::from(value as i16) / 8192.0, // from -4 to 4
        6 | 7 => f64::from(value as i8) / 8.0, // so that edited logits tie with others
        at => HARD[usize::from(at - 8)],
    }
}

/// A linear congruential generator.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 32
}

/// A bitmask, which may have fewer words than the row needs.
fn bitmask(kind: u8, value: u64, size: usize) -> Option<Vec<u32>> {
    let all = size.div_ceil(32);
    let count = if kind >> 4 & 3 == 0 { 1 + (value >> 8) as usize % all.max(1) } else { all };
    let mut state = value;
    let mut word = |index: usize| match kind % 16 {
        4 | 5 => random(&mut state) as u32, // about half of the tokens
        6 => (random(&mut state) & random(&mut state) & random(&mut state)) as u32, // few
        7 => (random(&mut state) | random(&mut state) | random(&mut state)) as u32, // most
        8 => 0,
        9 => u32::MAX,
        10 => {
            if index == (value as usize) % all {
                1 << (value >> 11)
            } else {
                0
            }
        } // one
        11 => {
            if index == (value as usize) % all {
                !(1 << (value >> 11))
            } else {
                u32::MAX
            }
        }
        12 => {
            if index / 2 % 2 == value as usize % 2 {
                u32::MAX
            } else {
                0
            }
        } // whole blocks
        13 => {
            if (index / 16 + value as usize).is_multiple_of(2) {
                u32::MAX
            } else {
                0
            }
        } // groups of blocks
        14 => 0x5555_5555 << (value % 2),
        _ => [0, u32::MAX, 1, 1 << 31][random(&mut state) as usize % 4],
    };
    (kind % 16 > 3 && size > 0).then(|| (0..count).map(&mut word).collect())
}

/// Token ids. A few may be beyond the row. Reads four bytes.
fn token_ids(bytes: &mut Bytes, size: usize, longest: usize) -> Vec<u32> {
    let (kind, count, value) = (bytes.byte(), usize::from(bytes.byte()), bytes.unsigned(2));
    let count = if longest > SHORT { count * 31 } else { count };
    let (size, mut state) = (size as u64, value);
    let mut id = |place: usize| match kind % 16 {
        3 | 4 => random(&mut state) % size,
        5 => random(&mut state) % size.min(8), // a few ids, which repeat
        6 => value % size,
        7 => (value + place as u64) % size,
        8 => (value + size - place as u64 % size) % size,
        9 => random(&mut state) % size.min(1 + value),
        10 => (value % 64 + place as u64 * 64) % size, // one in each block
        11 => random(&mut state) % (size + 2),
        12 => [0, size - 1, size, u64::from(u32::MAX)][random(&mut state) as usize % 4],
        13 => random(&mut state), // mostly ids that no row has
        _ => (value + random(&mut state) % 64) % size,
    };
    if kind % 16 > 2 && size > 0 { (0..count).map(|place| id(place) as u32).collect() } else { Vec::new() }
}

/// Biases. Reads five bytes.
fn biases(bytes: &mut Bytes, size: usize, longest: usize) -> Vec<(u32, f32)> {
    const HARD: [f32; 8] = [0.0, -0.0, 3.4e38, -3.4e38, f32::NEG_INFINITY, 100.0, -100.0, 1e-45];
    let kind = bytes.byte();
    let mut ids = token_ids(bytes, size, longest);
    let (mut seen, mut state) = (HashSet::new(), u64::from(kind));
    ids.retain(|&id| seen.insert(id));
    let mut bias = || match kind % 8 {
        0 | 1 => f32::from(random(&mut state) as i8) / 8.0, // so that edited logits tie with others
        2 => f32::NEG_INFINITY,
        3 => 100.0,
        4 => Some(f32::from_bits(random(&mut state) as u32)).filter(|bias| bias.abs() <= 3.4e38).unwrap_or(0.0),
        5 => bell(&mut state) * 8.0,
        _ => HARD[random(&mut state) as usize % HARD.len()],
    };
    ids.into_iter().map(|id| (id, bias())).collect()
}

/// Runs the commands. Each is a byte, whose low three bits choose the command, followed by the bytes that the command reads.
fn row<T: Element>(commands: &[u8], longest: usize, finite: bool) -> Vec<T> {
    let mut row: Vec<T> = Vec::new();
    let mut bytes = Bytes(commands);
    // On long rows the counts are larger, so that few commands make thousands of logits.
    let unit = if longest > SHORT { 31 } else { 1 };
    let logit = |bits: u32| match T::from_raw(bits) {
        x if finite && (x.to_f32().is_nan() || x.to_f32() == f32::INFINITY) => T::from_raw(bits & !T::EXPONENT),
        x => x,
    };
    while !bytes.0.is_empty() && row.len() < longest {
        let command = bytes.byte();
        let few = usize::from(command >> 3) + 1; // 1 to 32
        match command & 7 {
            0 => {
                for _ in 0..few {
                    row.push(logit(bytes.unsigned(T::BYTES) as u32)); // any bits
                }
            }
            1 => {
                for _ in 0..few {
                    row.push(T::nearest(f32::from(bytes.byte() as i8) / 8.0)); // many ties
                }
            }
            2 => {
                let x = logit(bytes.unsigned(T::BYTES) as u32);
                row.resize(row.len() + many(&mut bytes) * unit, x);
            }
            3 => row.resize(row.len() + many(&mut bytes) * unit, T::NEG_INFINITY),
            4 => {
                let base = bytes.unsigned(T::BYTES) as u32;
                for _ in 0..few {
                    row.push(logit(base.wrapping_add_signed(i32::from(bytes.byte() as i8 >> 4)))); // neighbouring floats
                }
            }
            5 => {
                let (base, step) = (bytes.unsigned(T::BYTES) as u32, i32::from(bytes.byte() as i8));
                let ramp = |i: usize| logit(base.wrapping_add_signed(step.wrapping_mul(i as i32)));
                row.extend((0..many(&mut bytes) * unit).map(ramp)); // ascending or descending
            }
            6 => {
                // Bell-shaped like a model's logits, with a width of 2**-5 to 2**10.
                let (seed, width) = (bytes.byte(), (1u32 << (command >> 4)) as f32 / 32.0);
                let mut state = u64::from(seed);
                let count = many(&mut bytes) * unit;
                row.extend((0..count).map(|_| T::nearest(bell(&mut state) * width)));
            }
            _ => {
                let last = (many(&mut bytes) * unit).min(row.len());
                row.extend_from_within(row.len() - last..); // repeat the last logits
            }
        }
    }
    row.truncate(longest);
    row
}

/// Reads a count of 1 to 256 from one byte.
fn many(bytes: &mut Bytes) -> usize {
    usize::from(bytes.byte()) + 1
}

/// Returns a number between -2 and 2, with about a normal distribution.
fn bell(state: &mut u64) -> f32 {
    random(state);
    let sum: u64 = [8, 22, 36, 50].iter().map(|&part| *state >> part & 0x3fff).sum();
    sum as f32 / 16384.0 - 2.0
}
