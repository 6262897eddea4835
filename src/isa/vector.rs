//! The few operations for which each instruction set has its own code. Everything else is the same in all clones.
//!
//! `Avx512` may only be used in a clone that runs on a CPU with AVX-512. That is ensured: the implementations are private to
//! the crate, and only `per_isa!` names them.
#![allow(unsafe_code)]

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
use super::neon;
use crate::lanes::{self, BLOCK, GROUP, LANES, Products, Sum};

/// The operations that differ between the clones. Each one is here because no loop compiles to the instruction that it needs,
/// or because that instruction is slow on a CPU that has to emulate it. DESIGN.md has the measurement of each.
pub trait Vector {
    /// True if a fused multiply-add is one instruction, and not a call into a library.
    const FUSED: bool;

    /// Runs a function that is compiled for this instruction set, in a place of its own: however many filters use a kernel,
    /// there is one copy of it for each instruction set and kind of row.
    fn run<R>(function: impl FnOnce() -> R) -> R;

    /// `a * b + c`, rounded once or twice depending on the instruction set. So this is for bounds and never for an answer.
    #[inline(always)]
    fn nearly_mul_add(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    /// Eight values whose maximum is the maximum of the block, if it contains no NaN. If it does, a lane of `nan` is set.
    #[inline(always)]
    fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        lanes::lanes(block, nan)
    }

    /// The same for a block of float16.
    #[inline(always)]
    fn lanes_of_f16(block: &[f16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        lanes::narrow_lanes(|i| block[i].to_bits(), 0x7c00, |bits| lanes::from_f16(f16::from_bits(bits)), nan)
    }

    /// The same for a block of bfloat16.
    #[inline(always)]
    fn lanes_of_bf16(block: &[bf16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        lanes::narrow_lanes(|i| block[i].to_bits(), 0x7f80, |bits| f32::from_bits(u32::from(bits) << 16), nan)
    }

    /// The maximum of each row.
    #[inline(always)]
    fn fold_together(lanes: &[[f32; GROUP]; GROUP]) -> [f32; GROUP] {
        lanes::fold_together(lanes)
    }

    /// Bit i is set if `block[i] >= floor`.
    fn at_least(block: &[f32; BLOCK], floor: f32) -> u64;

    /// The block with -inf in place of each value whose bit is not set.
    #[inline(always)]
    fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
        lanes::allowed(block, bits)
    }

    /// `power(f) * 2**n` for each `max(exponent(x), lowest) = n + f`, where n is the nearest integer (ties to even), and
    /// `lowest` stands for NaN, too. The exponents must be at most 2**8, `lowest` at least -2**8, and the results normal numbers.
    #[inline(always)]
    fn powers(
        block: &[f32; BLOCK],
        exponent: impl Fn(f32) -> f32,
        lowest: f32,
        power: impl Fn(f32) -> f32,
    ) -> [f32; BLOCK] {
        lanes::powers(block, exponent, lowest, power)
    }

    /// Eight values whose maximum is that of the values whose bits are set. A lane of `nan` is set if one of these is NaN, and
    /// may also be set if another one is.
    #[inline(always)]
    fn allowed_lanes(block: &[f32; BLOCK], bits: u64, nan: &mut [u32; LANES]) -> [f32; GROUP] {
        Self::lanes(&Self::allowed(block, bits), nan)
    }

    /// The sum of the values, each rounded to an integer (ties to even). The values must be in [0, 2**LIGHT].
    #[inline(always)]
    fn sum_of_light(block: &[f32; BLOCK]) -> u64 {
        lanes::sum_of_rounded(block)
    }

    /// Adds the values, each rounded to an integer (ties to even), to a sum. They must be in [0, 2**LIGHT] if the block is
    /// light, and otherwise in [0, 2**41].
    #[inline(always)]
    fn add(block: &[f32; BLOCK], is_light: bool, sum: &mut Sum) {
        sum.add(if is_light { Self::sum_of_light(block) } else { lanes::sum_of_rounded(block) });
    }

    /// Adds the numbers, each rounded to an integer (ties to even), and their products with the factors. The numbers must be in
    /// [0, 2**28], and the factors integers in [0, 2**28].
    #[inline(always)]
    fn add_products(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
        sums.add(numbers, factors);
    }

    /// Adds integers, less a bias, and their squares, with the bias and modulo 2**64. Less the bias, they must be in [0, 2**30).
    #[inline(always)]
    fn add_squares(biased: &[u32; BLOCK], bias: u32, sums: &mut Products) {
        sums.add_squares(biased, bias);
    }

    /// The sum of a block of numbers, added in an order that depends on the instruction set. So this, too, is for bounds: if no
    /// number is negative, it is within 2**-21 of the sum.
    #[inline(always)]
    fn nearly_sum(number: impl Fn(usize) -> f32) -> f32 {
        lanes::sum_in_halves(number)
    }

    /// The sum of the numbers whose keys are below a limit, added in an order that depends on the instruction set. There are as
    /// many keys as numbers.
    #[inline(always)]
    fn nearly_sum_below(keys: &[f32], limit: f32, numbers: &[f32]) -> f32 {
        lanes::sum_below(keys, limit, numbers, |sums| Self::nearly_sum(|lane| sums[lane]))
    }

    /// The block as float32.
    #[inline(always)]
    fn widen(block: &[f16; BLOCK]) -> [f32; BLOCK] {
        let mut wide = [0.0; BLOCK];
        for (wide, x) in wide.iter_mut().zip(block) {
            *wide = lanes::from_f16(*x); // half's own conversion would detect the CPU's features each time
        }
        wide
    }
}

pub struct Portable;

impl Vector for Portable {
    const FUSED: bool = false;

    #[inline(never)]
    fn run<R>(function: impl FnOnce() -> R) -> R {
        function()
    }

    #[cfg(not(target_arch = "aarch64"))]
    #[inline(always)]
    fn at_least(block: &[f32; BLOCK], floor: f32) -> u64 {
        let mut mask = 0;
        for (place, &x) in block.iter().enumerate() {
            mask |= u64::from(x >= floor) << place;
        }
        mask
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn at_least(block: &[f32; BLOCK], floor: f32) -> u64 {
        // SAFETY: every CPU of this architecture has NEON. That holds for the other operations, too.
        unsafe { neon::at_least(block, floor) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        // SAFETY: as above.
        unsafe { neon::lanes(block, nan) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
        // SAFETY: as above.
        unsafe { neon::allowed(block, bits) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn allowed_lanes(block: &[f32; BLOCK], bits: u64, nan: &mut [u32; LANES]) -> [f32; GROUP] {
        // SAFETY: as above.
        unsafe { neon::allowed_lanes(block, bits, nan) }
    }

    /// In one loop over each part of a block. Of two loops, as they are elsewhere, the second one loads all constants again
    /// for each register, and the values between the loops are cleared before they are written.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn powers(
        block: &[f32; BLOCK],
        exponent: impl Fn(f32) -> f32,
        lowest: f32,
        power: impl Fn(f32) -> f32,
    ) -> [f32; BLOCK] {
        let mut powers = [0.0; BLOCK];
        for (powers, x) in powers.as_chunks_mut::<LANES>().0.iter_mut().zip(block.as_chunks::<LANES>().0) {
            for (power_of_x, &x) in powers.iter_mut().zip(x) {
                let (n, fraction) = lanes::split(lanes::max(lowest, exponent(x)));
                *power_of_x = lanes::times_power(power(fraction), n);
            }
        }
        powers
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn sum_of_light(block: &[f32; BLOCK]) -> u64 {
        // SAFETY: as above.
        unsafe { neon::sum_of_light(block) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn add_products(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
        // SAFETY: as above.
        unsafe { neon::add_products(numbers, factors, sums) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
#[inline]
fn eight_from_f16(x: &[f16; 8]) -> [f32; 8] {
    use std::arch::x86_64::*;

    let mut wide = [0.0; 8];
    // SAFETY: this loads eight float16 and stores eight float32. Neither needs to be aligned.
    unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()))) };
    wide
}

#[cfg(target_arch = "x86_64")]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    const FUSED: bool = true;

    #[inline(always)]
    fn run<R>(function: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        #[inline(never)]
        fn avx2<R>(function: impl FnOnce() -> R) -> R {
            function()
        }

        // SAFETY: this is called from nowhere but the clones of `per_isa!` that have these features.
        unsafe { avx2(function) }
    }

    #[inline(always)]
    fn at_least(block: &[f32; BLOCK], floor: f32) -> u64 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx2")]
        #[inline]
        fn eight(x: &[f32; 8], floor: f32) -> u64 {
            // SAFETY: `x` has eight floats, and the load does not need to be aligned.
            let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(x, _mm256_set1_ps(floor));
            u64::from(_mm256_movemask_ps(reached) as u32)
        }

        let mut mask = 0;
        for (place, x) in block.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
            mask |= unsafe { eight(x, floor) } << (8 * place);
        }
        mask
    }

    #[inline(always)]
    fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx2")]
        #[inline]
        fn eight(x: &[f32; 8], bits: u8) -> [f32; 8] {
            let mut kept = [0.0; 8];
            let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), each), each);
            let banned = _mm256_set1_ps(f32::NEG_INFINITY);
            // SAFETY: this loads and stores eight floats. Neither needs to be aligned.
            unsafe {
                let x = _mm256_loadu_ps(x.as_ptr());
                _mm256_storeu_ps(kept.as_mut_ptr(), _mm256_blendv_ps(banned, x, _mm256_castsi256_ps(set)));
            }
            kept
        }

        let mut kept = [0.0; BLOCK];
        for (place, (kept, x)) in kept.as_chunks_mut::<8>().0.iter_mut().zip(block.as_chunks::<8>().0).enumerate() {
            // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
            *kept = unsafe { eight(x, (bits >> (8 * place)) as u8) };
        }
        kept
    }

    #[inline(always)]
    fn sum_of_light(block: &[f32; BLOCK]) -> u64 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx2")]
        #[inline]
        fn lanes(block: &[f32; BLOCK]) -> [u32; 8] {
            let mut sums = _mm256_setzero_si256();
            for x in block.as_chunks::<8>().0 {
                // SAFETY: `x` has eight floats, and the load does not need to be aligned.
                sums = _mm256_add_epi32(sums, _mm256_cvtps_epi32(unsafe { _mm256_loadu_ps(x.as_ptr()) }));
            }
            let mut lanes = [0; 8];
            // SAFETY: `lanes` has eight integers, and the store does not need to be aligned.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
            lanes
        }

        // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
        let lanes = unsafe { lanes(block) };
        let mut sum = 0;
        for lane in lanes {
            sum += u64::from(lane); // a lane has not overflowed: it is the sum of eight values of at most 2**LIGHT
        }
        sum
    }

    #[inline(always)]
    fn add_products(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
        use std::arch::x86_64::*;

        /// Adds half a block, of which the lanes of 32 bits can hold the sum.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn add(numbers: &[f32; 32], factors: &[f32; 32], sums: &mut Products) {
            let integers = |x: &[f32; 8]| {
                // SAFETY: `x` has eight floats, and the load does not need to be aligned.
                _mm256_cvtps_epi32(unsafe { _mm256_loadu_ps(x.as_ptr()) })
            };
            let upper = |x| _mm256_srli_epi64::<32>(x);
            // SAFETY: `products` has eight integers, four for each load, which does not need to be aligned.
            let mut products = [0, 4].map(|at| unsafe { _mm256_loadu_si256(sums.products.as_ptr().add(at).cast()) });
            let mut sum = _mm256_setzero_si256();
            for (numbers, factors) in numbers.as_chunks::<8>().0.iter().zip(factors.as_chunks::<8>().0) {
                let (numbers, factors) = (integers(numbers), integers(factors));
                sum = _mm256_add_epi32(sum, numbers);
                products[0] = _mm256_add_epi64(products[0], _mm256_mul_epu32(numbers, factors));
                products[1] = _mm256_add_epi64(products[1], _mm256_mul_epu32(upper(numbers), upper(factors)));
            }
            let lower = _mm256_and_si256(sum, _mm256_set1_epi64x(0xffff_ffff));
            // SAFETY: `numbers` and `products` have eight integers each, four for each load and store, which do not need to be
            // aligned.
            unsafe {
                for (part, sum) in [lower, upper(sum)].into_iter().enumerate() {
                    let lanes = sums.numbers.as_mut_ptr().add(4 * part).cast();
                    _mm256_storeu_si256(lanes, _mm256_add_epi64(_mm256_loadu_si256(lanes), sum));
                    _mm256_storeu_si256(sums.products.as_mut_ptr().add(4 * part).cast(), products[part]);
                }
            }
        }

        let (numbers, factors) = (numbers.as_chunks::<32>().0, factors.as_chunks::<32>().0);
        for (numbers, factors) in numbers.iter().zip(factors) {
            // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
            unsafe { add(numbers, factors, sums) };
        }
    }

    #[inline(always)]
    fn add_squares(biased: &[u32; BLOCK], bias: u32, sums: &mut Products) {
        use std::arch::x86_64::*;

        /// Adds half a block, of which the lanes of 32 bits can hold the sum.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn add(biased: &[u32; 32], bias: u32, sums: &mut Products) {
            let upper = |x| _mm256_srli_epi64::<32>(x);
            // SAFETY: `products` has eight integers, four for each load, which does not need to be aligned.
            let mut squares = [0, 4].map(|at| unsafe { _mm256_loadu_si256(sums.products.as_ptr().add(at).cast()) });
            let mut sum = _mm256_set1_epi32(bias.wrapping_mul(4).wrapping_neg() as i32);
            for biased in biased.as_chunks::<8>().0 {
                // SAFETY: `biased` has eight integers, and the load does not need to be aligned.
                let biased = unsafe { _mm256_loadu_si256(biased.as_ptr().cast()) };
                sum = _mm256_add_epi32(sum, biased);
                squares[0] = _mm256_add_epi64(squares[0], _mm256_mul_epu32(biased, biased));
                squares[1] = _mm256_add_epi64(squares[1], _mm256_mul_epu32(upper(biased), upper(biased)));
            }
            let lower = _mm256_and_si256(sum, _mm256_set1_epi64x(0xffff_ffff));
            // SAFETY: `numbers` and `products` have eight integers each, four for each load and store, which do not need to be
            // aligned.
            unsafe {
                for (part, sum) in [lower, upper(sum)].into_iter().enumerate() {
                    let lanes = sums.numbers.as_mut_ptr().add(4 * part).cast();
                    _mm256_storeu_si256(lanes, _mm256_add_epi64(_mm256_loadu_si256(lanes), sum));
                    _mm256_storeu_si256(sums.products.as_mut_ptr().add(4 * part).cast(), squares[part]);
                }
            }
        }

        for biased in biased.as_chunks::<32>().0 {
            // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
            unsafe { add(biased, bias, sums) };
        }
    }

    #[inline(always)]
    fn nearly_sum(number: impl Fn(usize) -> f32) -> f32 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx2")]
        #[inline]
        fn sum(lanes: &[f32; LANES]) -> f32 {
            // SAFETY: `lanes` has sixteen floats, eight for each load, which does not need to be aligned.
            let [first, second] = [0, 8].map(|lane| unsafe { _mm256_loadu_ps(lanes.as_ptr().add(lane)) });
            let eight = _mm256_add_ps(first, second);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }

        // SAFETY: only the clones of `per_isa!` that have AVX2 call this.
        unsafe { sum(&lanes::sums_in_lanes(number)) }
    }

    #[inline(always)]
    fn widen(block: &[f16; BLOCK]) -> [f32; BLOCK] {
        let mut wide = [0.0; BLOCK];
        for (wide, x) in wide.as_chunks_mut::<8>().0.iter_mut().zip(block.as_chunks::<8>().0) {
            // SAFETY: only the clones of `per_isa!` that have F16C call this.
            *wide = unsafe { eight_from_f16(x) };
        }
        wide
    }
}

/// Sets the lanes of `nan` in which there is a NaN.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn note_nan([a, b, c, d]: [std::arch::x86_64::__m512; 4], nan: &mut [u32; LANES]) {
    use std::arch::x86_64::*;

    // SAFETY: `nan` has sixteen integers, and neither the load nor the store needs to be aligned.
    unsafe {
        let ordered = _mm512_mask_cmp_ps_mask::<_CMP_ORD_Q>(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(a, b), c, d);
        // In registers, these are operations on masks.
        let before = _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(nan.as_ptr().cast()), _mm512_setzero_si512());
        let ordered = before & ordered;
        _mm512_storeu_si512(nan.as_mut_ptr().cast(), _mm512_movm_epi32(!ordered));
    }
}

/// The larger ones of the first eight floats and the last eight.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn eight_maxima(maxima: std::arch::x86_64::__m512) -> [f32; GROUP] {
    use std::arch::x86_64::*;

    let eight = _mm256_max_ps(_mm512_castps512_ps256(maxima), _mm512_extractf32x8_ps::<1>(maxima));
    let mut lanes = [0.0; GROUP];
    // SAFETY: `lanes` has eight floats, and the store does not need to be aligned.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), eight) };
    lanes
}

#[cfg(target_arch = "x86_64")]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    const FUSED: bool = true;

    #[inline(always)]
    fn run<R>(function: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi2")]
        #[inline(never)]
        fn avx512<R>(function: impl FnOnce() -> R) -> R {
            function()
        }

        // SAFETY: this is called from nowhere but the clones of `per_isa!` that have these features.
        unsafe { avx512(function) }
    }

    /// Widening takes less time here than comparing as integers.
    #[inline(always)]
    fn lanes_of_f16(block: &[f16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        Self::lanes(&Self::widen(block), nan)
    }

    #[inline(always)]
    fn lanes_of_bf16(block: &[bf16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        use std::arch::x86_64::*;

        /// A lane of 32 bits holds two values. The bits of a bfloat16 are the upper half of those of the float32, and the order
        /// of the values does not matter for their maximum, so no value has to move to another lane.
        #[target_feature(enable = "avx512f,avx512dq")]
        #[inline]
        fn eight(block: &[half::bf16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
            let pairs = block.as_chunks::<{ 2 * LANES }>().0;
            let widened = |pairs: &[half::bf16; 2 * LANES]| {
                // SAFETY: `pairs` has 64 bytes, and the load does not need to be aligned.
                let pairs = unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) };
                let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second)]
            };
            let ([a, b], [c, d]) = (widened(&pairs[0]), widened(&pairs[1]));
            let maxima = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d));
            note_nan([a, b, c, d], nan);
            eight_maxima(maxima)
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { eight(block, nan) }
    }

    #[inline(always)]
    fn fold_together(lanes: &[[f32; GROUP]; GROUP]) -> [f32; GROUP] {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f,avx512dq")]
        #[inline]
        fn fold(lanes: &[[f32; GROUP]; GROUP]) -> [f32; GROUP] {
            // SAFETY: each row has eight floats, and the load does not need to be aligned.
            let row = |row: usize| unsafe { _mm256_loadu_ps(lanes[row].as_ptr()) };
            let two = |a, b| _mm512_insertf32x8::<1>(_mm512_castps256_ps512(row(a)), row(b));
            let four = |x, y| {
                let first = _mm512_shuffle_f32x4::<0b10_00_10_00>(x, y);
                let second = _mm512_shuffle_f32x4::<0b11_01_11_01>(x, y);
                _mm512_max_ps(first, second)
            };
            let (low, high) = (four(two(0, 1), two(2, 3)), four(two(4, 5), two(6, 7)));
            let eight = _mm512_max_ps(
                _mm512_shuffle_ps::<0b01_00_01_00>(low, high),
                _mm512_shuffle_ps::<0b11_10_11_10>(low, high),
            );
            let eight = _mm512_max_ps(eight, _mm512_permute_ps::<0b10_11_00_01>(eight));
            let places = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
            let eight = _mm512_castps512_ps256(_mm512_permutexvar_ps(places, eight));
            let mut maxima = [0.0; GROUP];
            // SAFETY: `maxima` has eight floats, and the store does not need to be aligned.
            unsafe { _mm256_storeu_ps(maxima.as_mut_ptr(), eight) };
            maxima
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { fold(lanes) }
    }

    #[inline(always)]
    fn at_least(block: &[f32; BLOCK], floor: f32) -> u64 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn sixteen(x: &[f32; 16], floor: f32) -> u64 {
            // SAFETY: `x` has sixteen floats, and the load does not need to be aligned.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, _mm512_set1_ps(floor)))
        }

        let mut mask = 0;
        for (place, x) in block.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
            mask |= unsafe { sixteen(x, floor) } << (16 * place);
        }
        mask
    }

    #[inline(always)]
    fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn sixteen(x: &[f32; 16], bits: u16) -> [f32; 16] {
            let mut kept = [0.0; 16];
            let banned = _mm512_set1_ps(f32::NEG_INFINITY);
            // SAFETY: this loads and stores sixteen floats. Neither needs to be aligned.
            unsafe {
                let x = _mm512_loadu_ps(x.as_ptr());
                _mm512_storeu_ps(kept.as_mut_ptr(), _mm512_mask_mov_ps(banned, bits, x));
            }
            kept
        }

        let mut kept = [0.0; BLOCK];
        for (place, (kept, x)) in kept.as_chunks_mut::<16>().0.iter_mut().zip(block.as_chunks::<16>().0).enumerate() {
            // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
            *kept = unsafe { sixteen(x, (bits >> (16 * place)) as u16) };
        }
        kept
    }

    #[inline(always)]
    fn powers(
        block: &[f32; BLOCK],
        exponent: impl Fn(f32) -> f32,
        lowest: f32,
        power: impl Fn(f32) -> f32,
    ) -> [f32; BLOCK] {
        use std::arch::x86_64::*;

        /// Returns what is left of each number without the nearest integer.
        #[target_feature(enable = "avx512f,avx512dq")]
        #[inline]
        fn fractions(x: &[f32; LANES]) -> [f32; LANES] {
            let mut fractions = [0.0; LANES];
            // SAFETY: this loads and stores sixteen floats. Neither needs to be aligned.
            unsafe {
                let x = _mm512_loadu_ps(x.as_ptr());
                _mm512_storeu_ps(fractions.as_mut_ptr(), _mm512_reduce_ps::<0>(x));
            }
            fractions
        }

        /// Returns `x * 2**n`.
        #[target_feature(enable = "avx512f")]
        #[inline]
        fn times_powers(x: &[f32; LANES], n: &[f32; LANES]) -> [f32; LANES] {
            let mut products = [0.0; LANES];
            // SAFETY: this loads and stores sixteen floats. None of them needs to be aligned.
            unsafe {
                let (x, n) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(n.as_ptr()));
                _mm512_storeu_ps(products.as_mut_ptr(), _mm512_scalef_ps(x, n));
            }
            products
        }

        let mut powers = [0.0; BLOCK];
        for (powers, x) in powers.as_chunks_mut::<LANES>().0.iter_mut().zip(block.as_chunks::<LANES>().0) {
            let exponents = x.map(|x| lanes::max(lowest, exponent(x)));
            // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
            let fractions = unsafe { fractions(&exponents) };
            let mut integers = exponents;
            for (n, fraction) in integers.iter_mut().zip(&fractions) {
                *n -= fraction;
            }
            // SAFETY: as above.
            *powers = unsafe { times_powers(&fractions.map(&power), &integers) };
        }
        powers
    }

    #[inline(always)]
    fn allowed_lanes(block: &[f32; BLOCK], bits: u64, nan: &mut [u32; LANES]) -> [f32; GROUP] {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f,avx512dq")]
        #[inline]
        fn eight(block: &[f32; BLOCK], bits: u64, nan: &mut [u32; LANES]) -> [f32; GROUP] {
            // SAFETY: each part has sixteen floats, and the load does not need to be aligned.
            let parts = [0, 1, 2, 3].map(|part| unsafe { _mm512_loadu_ps(block[part * LANES..].as_ptr()) });
            let mut maxima = _mm512_set1_ps(f32::NEG_INFINITY);
            for (part, x) in parts.into_iter().enumerate() {
                maxima = _mm512_mask_max_ps(maxima, (bits >> (part * LANES)) as __mmask16, maxima, x);
            }
            note_nan(parts, nan);
            eight_maxima(maxima)
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { eight(block, bits, nan) }
    }

    #[inline(always)]
    fn sum_of_light(block: &[f32; BLOCK]) -> u64 {
        let mut sum = Sum::default();
        Self::add(block, true, &mut sum);
        sum.total()
    }

    #[inline(always)]
    fn add(block: &[f32; BLOCK], is_light: bool, sum: &mut Sum) {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn add_light(block: &[f32; BLOCK], lanes: &mut [u32; 16]) {
            // SAFETY: `lanes` has sixteen integers, and the load does not need to be aligned.
            let mut sums = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
            for x in block.as_chunks::<16>().0 {
                // SAFETY: `x` has sixteen floats, and the load does not need to be aligned.
                sums = _mm512_add_epi32(sums, _mm512_cvtps_epi32(unsafe { _mm512_loadu_ps(x.as_ptr()) }));
            }
            // SAFETY: `lanes` has sixteen integers, and the store does not need to be aligned.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), sums) };
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        sum.add_to_lanes(block, is_light, |lanes| unsafe { add_light(block, lanes) });
    }

    #[inline(always)]
    fn add_products(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn add(numbers: &[f32; BLOCK], factors: &[f32; BLOCK], sums: &mut Products) {
            let integers = |x: &[f32; 16]| {
                // SAFETY: `x` has sixteen floats, and the load does not need to be aligned.
                _mm512_cvtps_epi32(unsafe { _mm512_loadu_ps(x.as_ptr()) })
            };
            let upper = |x| _mm512_srli_epi64::<32>(x);
            // SAFETY: `products` has eight integers, and the load does not need to be aligned.
            let mut products = unsafe { _mm512_loadu_si512(sums.products.as_ptr().cast()) };
            let mut sum = _mm512_setzero_si512();
            for (numbers, factors) in numbers.as_chunks::<16>().0.iter().zip(factors.as_chunks::<16>().0) {
                let (numbers, factors) = (integers(numbers), integers(factors));
                sum = _mm512_add_epi32(sum, numbers);
                products = _mm512_add_epi64(products, _mm512_mul_epu32(numbers, factors));
                products = _mm512_add_epi64(products, _mm512_mul_epu32(upper(numbers), upper(factors)));
            }
            let lower = _mm512_and_si512(sum, _mm512_set1_epi64(0xffff_ffff));
            // SAFETY: `numbers` and `products` have eight integers each, and nothing needs to be aligned.
            unsafe {
                let lanes = _mm512_loadu_si512(sums.numbers.as_ptr().cast());
                let lanes = _mm512_add_epi64(lanes, _mm512_add_epi64(lower, upper(sum)));
                _mm512_storeu_si512(sums.numbers.as_mut_ptr().cast(), lanes);
                _mm512_storeu_si512(sums.products.as_mut_ptr().cast(), products);
            }
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { add(numbers, factors, sums) };
    }

    #[inline(always)]
    fn add_squares(biased: &[u32; BLOCK], bias: u32, sums: &mut Products) {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn add(biased: &[u32; BLOCK], bias: u32, sums: &mut Products) {
            let upper = |x| _mm512_srli_epi64::<32>(x);
            // SAFETY: `products` has eight integers, and the load does not need to be aligned.
            let mut squares = unsafe { _mm512_loadu_si512(sums.products.as_ptr().cast()) };
            let mut sum = _mm512_set1_epi32(bias.wrapping_mul(4).wrapping_neg() as i32);
            for biased in biased.as_chunks::<16>().0 {
                // SAFETY: `biased` has sixteen integers, and the load does not need to be aligned.
                let biased = unsafe { _mm512_loadu_si512(biased.as_ptr().cast()) };
                sum = _mm512_add_epi32(sum, biased);
                squares = _mm512_add_epi64(squares, _mm512_mul_epu32(biased, biased));
                squares = _mm512_add_epi64(squares, _mm512_mul_epu32(upper(biased), upper(biased)));
            }
            let lower = _mm512_and_si512(sum, _mm512_set1_epi64(0xffff_ffff));
            // SAFETY: `numbers` and `products` have eight integers each, and nothing needs to be aligned.
            unsafe {
                let lanes = _mm512_loadu_si512(sums.numbers.as_ptr().cast());
                let lanes = _mm512_add_epi64(lanes, _mm512_add_epi64(lower, upper(sum)));
                _mm512_storeu_si512(sums.numbers.as_mut_ptr().cast(), lanes);
                _mm512_storeu_si512(sums.products.as_mut_ptr().cast(), squares);
            }
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { add(biased, bias, sums) };
    }

    #[inline(always)]
    fn nearly_sum(number: impl Fn(usize) -> f32) -> f32 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn sum(lanes: &[f32; LANES]) -> f32 {
            // SAFETY: `lanes` has sixteen floats, and the load does not need to be aligned.
            _mm512_reduce_add_ps(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
        }

        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        unsafe { sum(&lanes::sums_in_lanes(number)) }
    }

    #[inline(always)]
    fn nearly_sum_below(keys: &[f32], limit: f32, numbers: &[f32]) -> f32 {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn sum(keys: &[[f32; BLOCK]], limit: f32, numbers: &[[f32; BLOCK]]) -> f32 {
            let limit = _mm512_set1_ps(limit);
            let mut sums = [_mm512_setzero_ps(); BLOCK / LANES];
            for (keys, numbers) in keys.iter().zip(numbers) {
                for (part, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: a part has sixteen floats, and the loads do not need to be aligned.
                    let (keys, numbers) = unsafe {
                        let at = part * LANES;
                        (_mm512_loadu_ps(keys[at..].as_ptr()), _mm512_loadu_ps(numbers[at..].as_ptr()))
                    };
                    *sum = _mm512_mask_add_ps(*sum, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(keys, limit), *sum, numbers);
                }
            }
            let [a, b, c, d] = sums;
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
        }

        let ((keys, other_keys), (numbers, others)) = (keys.as_chunks::<BLOCK>(), numbers.as_chunks::<BLOCK>());
        // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
        let mut total = unsafe { sum(keys, limit, numbers) };
        for (&key, &number) in other_keys.iter().zip(others) {
            total += if key < limit { number } else { 0.0 };
        }
        total
    }

    #[inline(always)]
    fn widen(block: &[f16; BLOCK]) -> [f32; BLOCK] {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn sixteen(x: &[f16; 16]) -> [f32; 16] {
            let mut wide = [0.0; 16];
            // SAFETY: this loads sixteen float16 and stores sixteen float32. Neither needs to be aligned.
            unsafe { _mm512_storeu_ps(wide.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))) };
            wide
        }

        let mut wide = [0.0; BLOCK];
        for (wide, x) in wide.as_chunks_mut::<16>().0.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: only the clones of `per_isa!` that have AVX-512 call this.
            *wide = unsafe { sixteen(x) };
        }
        wide
    }
}
