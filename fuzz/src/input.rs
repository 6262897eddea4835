//! From the fuzzer's bytes to a row of logits, parameters and a random word.
//!
//! Every sequence of bytes is an input. The first 32 are a header whose fields have fixed places; the rest are commands that
//! append to the row. Most values of a field stand for something that is hard for a sampler, so that random bytes make hard
//! rows: ties, banned blocks, subnormals, neighbouring floats, and lengths around multiples of a block.

use half::{bf16, f16};
use toksample::logit::Logit;
use toksample::params::Params;

/// The longest row of the targets for short rows: four blocks and a bit.
pub const SHORT: usize = 4 * 64 + 17;

/// The longest row of the target for long rows.
pub const LONG: usize = 20_000;

/// What is in the header.
pub struct Case {
    pub params: Params,
    pub word: u64,
    /// For `top_k`, the function: from 1 to the length of the row.
    pub k: usize,
    /// Which operation, for a target that has several.
    pub operation: u8,
}

/// A row of one of the types.
pub enum Row {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A type of logit, and its bits.
pub trait Element: Logit {
    /// All bits of the exponent: what NaN and the infinities have.
    const EXPONENT: u32;
    /// How many bytes one value takes.
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

/// The bytes that are left. When there are none, it gives zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.unsigned(1) as u8
    }

    /// An integer of so many bytes, the lowest first.
    fn unsigned(&mut self, bytes: usize) -> u64 {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }
}

/// Decodes an input; None if the parameters are out of their ranges. The row has at most `longest` logits.
pub fn decode(bytes: &[u8], longest: usize) -> Option<(Row, Case)> {
    let (header, commands) = bytes.split_at(bytes.len().min(32));
    let mut header = Bytes(header);
    let flags = header.byte();
    // One input in eight may have NaN and +inf: a row that has one is refused, and tests nothing else.
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
    let raw = header.unsigned(8); // for the parameters that are any float64 at all
    let params = Params {
        temperature: temperature(header.byte(), header.unsigned(2), raw),
        top_k: count(header.byte(), header.unsigned(2), size),
        top_p: share(header.byte(), header.unsigned(2), size, raw, 1.0),
        min_p: share(header.byte(), header.unsigned(2), size, raw, 0.0),
    };
    params.validate().ok()?;
    let k = (count(header.byte(), raw & 0xffff, size) as usize).min(size);
    Some((row, Case { params, word, k, operation }))
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
        2 => 1 + value % 6, // no more than a short row has blocks
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
        5 => (1 + value as usize % size.max(1)) as f64 / size.max(1) as f64, // where equal tokens reach the share exactly
        6 => 1.0 / (1u64 << (value % 45)) as f64,
        at => HARD[usize::from(at - 7)],
    }
}

/// Runs the commands. Each is a byte, whose low three bits say which it is, and then what that command takes.
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
                // As a model's logits are: bell-shaped, of a width of 2**-5 to 2**10, or with an even wider one.
                let (seed, width) = (bytes.byte(), (1u32 << (command >> 4)) as f32 / 32.0);
                let mut state = u64::from(seed);
                let count = many(&mut bytes) * unit;
                row.extend((0..count).map(|_| T::nearest(bell(&mut state) * width)));
            }
            _ => {
                let last = (many(&mut bytes) * unit).min(row.len());
                row.extend_from_within(row.len() - last..); // the same logits once more
            }
        }
    }
    row.truncate(longest);
    row
}

/// A count of 1 to 256, from one byte.
fn many(bytes: &mut Bytes) -> usize {
    usize::from(bytes.byte()) + 1
}

/// A number between -2 and 2 of about a normal distribution, by a linear congruential generator.
fn bell(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let sum: u64 = [8, 22, 36, 50].iter().map(|&part| *state >> part & 0x3fff).sum();
    sum as f32 / 16384.0 - 2.0
}
