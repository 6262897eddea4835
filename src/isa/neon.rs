//! Operations of `Vector` for aarch64. Every CPU of this architecture has NEON, so that the portable clones use them.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use crate::lanes::{BLOCK, GROUP, LANES, Products};

/// The number of floats in a register.
const FOUR: usize = 4;

/// Loads part of a block.
#[target_feature(enable = "neon")]
#[inline]
fn load(block: &[f32; BLOCK], part: usize) -> float32x4_t {
    // SAFETY: a part has four floats.
    unsafe { vld1q_f32(block.as_chunks::<FOUR>().0[part].as_ptr()) }
}

/// Loads part of a block, with -inf in place of each value whose bit is not set.
#[target_feature(enable = "neon")]
#[inline]
fn load_allowed(block: &[f32; BLOCK], part: usize, bits: u64) -> float32x4_t {
    /// The bit of each lane, for the eight parts of half a block.
    const BITS: [[u32; FOUR]; 8] = {
        let mut bits = [[0; FOUR]; 8];
        let mut place = 0;
        while place < 32 {
            bits[place / FOUR][place % FOUR] = 1 << place;
            place += 1;
        }
        bits
    };
    let half = (bits >> (part / 8 * 32)) as u32;
    // SAFETY: a part of the table has four integers.
    let each = unsafe { vld1q_u32(BITS[part % 8].as_ptr()) };
    vbslq_f32(vtstq_u32(vdupq_n_u32(half), each), load(block, part), vdupq_n_f32(f32::NEG_INFINITY))
}

/// Returns eight values whose maximum is that of all parts. The maximum of two floats is NaN here if one of them is, so that
/// only the last ones must be tested.
#[target_feature(enable = "neon")]
#[inline]
fn maxima(part: impl Fn(usize) -> float32x4_t, nan: &mut [u32; LANES]) -> [f32; GROUP] {
    let mut maxima = [part(0), part(1)];
    for next in 2..BLOCK / FOUR {
        maxima[next % 2] = vmaxq_f32(maxima[next % 2], part(next));
    }
    let mut lanes = [0.0; GROUP];
    for (lanes, maxima) in lanes.as_chunks_mut::<FOUR>().0.iter_mut().zip(maxima) {
        // SAFETY: `lanes` has four floats.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), maxima) };
    }
    for (nan, x) in nan.iter_mut().zip(lanes) {
        *nan |= if x.is_nan() { u32::MAX } else { 0 };
    }
    lanes
}

#[target_feature(enable = "neon")]
#[inline]
pub fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
    maxima(|part| load(block, part), nan)
}

#[target_feature(enable = "neon")]
#[inline]
pub fn allowed_lanes(block: &[f32; BLOCK], bits: u64, nan: &mut [u32; LANES]) -> [f32; GROUP] {
    maxima(|part| load_allowed(block, part, bits), nan)
}

#[target_feature(enable = "neon")]
#[inline]
pub fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
    let mut kept = [0.0; BLOCK];
    for (part, kept) in kept.as_chunks_mut::<FOUR>().0.iter_mut().enumerate() {
        // SAFETY: `kept` has four floats.
        unsafe { vst1q_f32(kept.as_mut_ptr(), load_allowed(block, part, bits)) };
    }
    kept
}

/// Narrows the results of sixteen comparisons at a time to a byte each, keeps one bit of each byte, and adds up neighbours
/// until eight bits are in a byte.
#[target_feature(enable = "neon")]
#[inline]
pub fn at_least(block: &[f32; BLOCK], floor: f32) -> u64 {
    let reached = |part| vreinterpretq_u16_u32(vcgeq_f32(load(block, part), vdupq_n_f32(floor)));
    let each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let sixteen = |part| {
        let eights = [part, part + 2].map(|part| vreinterpretq_u8_u16(vuzp1q_u16(reached(part), reached(part + 1))));
        vandq_u8(vuzp1q_u8(eights[0], eights[1]), each)
    };
    let twos = [0, 8].map(|part| vpaddq_u8(sixteen(part), sixteen(part + 4)));
    let fours = vpaddq_u8(twos[0], twos[1]);
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(fours, fours)))
}

#[target_feature(enable = "neon")]
#[inline]
pub fn sum_of_light(block: &[f32; BLOCK]) -> u64 {
    let mut sums = [vdupq_n_u32(0); 2];
    for part in 0..BLOCK / FOUR {
        // A lane does not overflow: it is the sum of eight values of at most 2**LIGHT.
        sums[part % 2] = vaddq_u32(sums[part % 2], vcvtnq_u32_f32(load(block, part)));
    }
    vaddlvq_u32(sums[0]) + vaddlvq_u32(sums[1])
}

#[target_feature(enable = "neon")]
#[inline]
pub fn add_products(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
    let zero = vdupq_n_u64(0);
    let (mut number_sums, mut product_sums) = ([zero; 2], [zero; 4]);
    for pair in 0..BLOCK / FOUR / 2 {
        for half in 0..2 {
            let part = 2 * pair + half;
            let (number, factor) = (vcvtnq_u32_f32(load(numbers, part)), vcvtnq_u32_f32(load(factors, part)));
            number_sums[half] = vpadalq_u32(number_sums[half], number);
            let [lower, upper] = [2 * half, 2 * half + 1];
            product_sums[lower] = vmlal_u32(product_sums[lower], vget_low_u32(number), vget_low_u32(factor));
            product_sums[upper] = vmlal_high_u32(product_sums[upper], number, factor);
        }
    }
    let add = |lanes: &mut [u64; GROUP], added: &[uint64x2_t]| {
        for (lanes, &added) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(added) {
            // SAFETY: `lanes` has two integers.
            unsafe { vst1q_u64(lanes.as_mut_ptr(), vaddq_u64(vld1q_u64(lanes.as_ptr()), added)) };
        }
    };
    add(&mut sums.numbers, &number_sums);
    add(&mut sums.products, &product_sums);
}

#[cfg(test)]
mod tests {
    use super::super::{Portable, Vector};
    use super::*;
    use crate::lanes::{self, LIGHT};

    const BITS: [u64; 7] =
        [0, 1, 1 << 63, u64::MAX, 0xffff_ffff_0000_0000, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    /// Returns a block of numbers that are made from random integers of 32 bits, another one for each seed.
    fn block(seed: u64, number: impl Fn(u32) -> f32) -> [f32; BLOCK] {
        let mut state = seed;
        [0; BLOCK].map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            number((state >> 32) as u32)
        })
    }

    /// Returns a small integer, often the same one, or sometimes an infinity.
    fn small(random: u32) -> f32 {
        match random >> 26 {
            0 => f32::INFINITY,
            1 => f32::NEG_INFINITY,
            integer => integer as f32 / 8.0 - 4.0,
        }
    }

    #[test]
    fn at_least_compares_each_place() {
        for seed in 0..100 {
            let mut block = block(seed, small);
            block[seed as usize % BLOCK] = f32::NAN;
            for floor in [f32::NEG_INFINITY, -1.0, 0.0, 2.5, f32::INFINITY] {
                let expected = (0..BLOCK).fold(0, |mask, place| mask | u64::from(block[place] >= floor) << place);
                assert_eq!(Portable::at_least(&block, floor), expected, "seed {seed}, floor {floor}");
            }
        }
    }

    #[test]
    fn only_allowed_values_are_kept_and_looked_at() {
        for (seed, bits) in (0..100).flat_map(|seed| BITS.map(|bits| (seed, bits))) {
            let mut block = block(seed, small);
            let place = seed as usize % BLOCK;
            block[place] = f32::NAN;
            let (kept, expected) = (Portable::allowed(&block, bits), lanes::allowed(&block, bits));
            assert_eq!(kept.map(f32::to_bits), expected.map(f32::to_bits), "seed {seed}, bits {bits:x}");

            let mut nan = [0; LANES];
            let maxima = Portable::allowed_lanes(&block, bits, &mut nan);
            let is_nan_allowed = bits >> place & 1 == 1;
            assert_eq!(nan != [0; LANES], is_nan_allowed, "seed {seed}, bits {bits:x}");
            if !is_nan_allowed {
                assert_eq!(lanes::maximum(&maxima), lanes::maximum(&expected), "seed {seed}, bits {bits:x}");
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_safe_loops() {
        // Many numbers are halfway between two integers.
        let number = |bits: u32| move |random: u32| (random >> (31 - bits)) as f32 / 2.0;
        for (seed, bits) in (0..100).flat_map(|seed| [2, 10, LIGHT, Products::LIGHT].map(|bits| (seed, bits))) {
            let (numbers, factors) = (block(seed, number(bits)), block(seed + 1000, |random| (random >> 4) as f32));
            if bits <= LIGHT {
                assert_eq!(
                    Portable::sum_of_light(&numbers),
                    lanes::sum_of_rounded(&numbers),
                    "seed {seed}, {bits} bits"
                );
            }
            let (mut sums, mut expected) = (Products::default(), Products::default());
            for _ in 0..3 {
                Portable::add_products(&numbers, &factors, &mut sums);
                expected.add(&numbers, &factors);
            }
            assert_eq!(sums.total(), expected.total(), "seed {seed}, {bits} bits");
        }
        let most = [(1 << LIGHT) as f32; BLOCK];
        assert_eq!(Portable::sum_of_light(&most), (BLOCK as u64) << LIGHT);
    }
}
