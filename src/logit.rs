//! The element types a row of logits may have.
//!
//! Every kernel computes in float32: a float16 or bfloat16 value is widened when it is read, which is exact. Rows are read
//! in place, whatever their type.

use half::{bf16, f16};

use crate::isa::Vector;
use crate::kernels::BLOCK;
use crate::kernels::argmax::{self, GROUP, LANES};

/// A type of logit, which float32 holds exactly.
pub trait Logit: Copy + Send + Sync + 'static {
    /// Minus infinity: a banned token, and what the last block of a row is padded with.
    const NEG_INFINITY: Self;

    /// The same value as a float32.
    fn to_f32(self) -> f32;

    /// What its maxima are found with: something in the same order.
    type Lane: Copy + Default;

    /// Eight values whose maximum is the block's; sets a lane of `nan` if there is one in it.
    fn lanes(block: &[Self; BLOCK], nan: &mut [u32; LANES]) -> [Self::Lane; GROUP];

    /// The larger of two.
    fn larger(a: Self::Lane, b: Self::Lane) -> Self::Lane;

    /// The logit as a float32.
    fn of_lane(lane: Self::Lane) -> f32;

    /// A block as float32, in `buffer` if it has to be widened.
    #[inline(always)]
    fn widen<'a, I: Vector>(block: &'a [Self; BLOCK], buffer: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
        for (wide, x) in buffer.iter_mut().zip(block) {
            *wide = x.to_f32();
        }
        buffer
    }
}

impl Logit for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    type Lane = f32;

    #[inline(always)]
    fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        argmax::lanes(block, nan)
    }

    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        argmax::max(a, b)
    }

    #[inline(always)]
    fn of_lane(lane: f32) -> f32 {
        lane
    }

    #[inline(always)]
    fn widen<'a, I: Vector>(block: &'a [f32; BLOCK], _: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
        block
    }
}

impl Logit for bf16 {
    const NEG_INFINITY: Self = bf16::NEG_INFINITY;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    type Lane = i16;

    #[inline(always)]
    fn lanes(block: &[bf16; BLOCK], nan: &mut [u32; LANES]) -> [i16; GROUP] {
        argmax::narrow_lanes(|i| block[i].to_bits(), 0x7f80, nan)
    }

    #[inline(always)]
    fn larger(a: i16, b: i16) -> i16 {
        a.max(b)
    }

    #[inline(always)]
    fn of_lane(lane: i16) -> f32 {
        Logit::to_f32(bf16::from_bits(argmax::turned(lane) as u16))
    }
}

impl Logit for f16 {
    const NEG_INFINITY: Self = f16::NEG_INFINITY;

    /// Moves exponent and mantissa to their places in a float32 and lets one multiplication by a power of two correct the
    /// exponent's bias, which makes subnormals right as well. What was infinite or NaN gets its exponent back. Branch-free,
    /// so that loops over it are vectorized; `half`'s own conversion is not.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23); // 2**112
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
        let value = (f32::from_bits(magnitude) * REBIAS).to_bits() | special;
        f32::from_bits(value | (bits & 0x8000) << 16)
    }

    type Lane = i16;

    #[inline(always)]
    fn lanes(block: &[f16; BLOCK], nan: &mut [u32; LANES]) -> [i16; GROUP] {
        argmax::narrow_lanes(|i| block[i].to_bits(), 0x7c00, nan)
    }

    #[inline(always)]
    fn larger(a: i16, b: i16) -> i16 {
        a.max(b)
    }

    #[inline(always)]
    fn of_lane(lane: i16) -> f32 {
        Logit::to_f32(f16::from_bits(argmax::turned(lane) as u16))
    }

    #[inline(always)]
    fn widen<'a, I: Vector>(block: &'a [f16; BLOCK], buffer: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
        *buffer = I::widen(block);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_and_bf16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(
                Logit::to_f32(half).to_bits() & !0x40_0000,
                half.to_f32().to_bits() & !0x40_0000,
                "f16 {bits:#x}"
            );
            assert_eq!(
                Logit::to_f32(brain).to_bits() & !0x40_0000,
                brain.to_f32().to_bits() & !0x40_0000,
                "bf16 {bits:#x}"
            );
        }
    }
}
