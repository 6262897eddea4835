//! The types of element that a row of logits may have.
//!
//! Every kernel computes in float32. A float16 or bfloat16 value is widened when it is read, which is exact. Rows of every
//! type are read in place.

use half::{bf16, f16};

use crate::isa::Vector;
use crate::lanes::{self, BLOCK, GROUP, LANES};

/// A type of logit whose values float32 can represent exactly.
pub trait Logit: Copy + Send + Sync + 'static {
    /// Minus infinity, which marks a banned token and pads the last block of a row.
    const NEG_INFINITY: Self;

    /// Returns the same value as a float32.
    fn to_f32(self) -> f32;

    /// The type with which maxima are found. Its values sort like the logits.
    type Lane: Copy + Default;

    /// Returns eight values whose maximum is the maximum of the block, and sets a lane of `nan` if it contains a NaN.
    fn lanes<I: Vector>(block: &[Self; BLOCK], nan: &mut [u32; LANES]) -> [Self::Lane; GROUP];

    /// Returns the larger of two values.
    fn larger(a: Self::Lane, b: Self::Lane) -> Self::Lane;

    /// Returns the logit that a lane stands for, as a float32.
    fn of_lane(lane: Self::Lane) -> f32;

    /// Returns the logits that eight lanes stand for.
    // This is a loop, because `map` on an array is not always inlined, and would then be compiled for the baseline.
    #[inline(always)]
    fn of_lanes(lanes: [Self::Lane; GROUP]) -> [f32; GROUP] {
        let mut logits = [0.0; GROUP];
        for (logit, lane) in logits.iter_mut().zip(&lanes) {
            *logit = Self::of_lane(*lane);
        }
        logits
    }

    /// Returns a block as float32, using `buffer` if it has to be widened.
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
    fn lanes<I: Vector>(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        I::lanes(block, nan)
    }

    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        lanes::max(a, b)
    }

    #[inline(always)]
    fn of_lane(lane: f32) -> f32 {
        lane
    }

    #[inline(always)]
    fn of_lanes(lanes: [f32; GROUP]) -> [f32; GROUP] {
        lanes
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
    fn lanes<I: Vector>(block: &[bf16; BLOCK], nan: &mut [u32; LANES]) -> [i16; GROUP] {
        lanes::narrow_lanes(|i| block[i].to_bits(), 0x7f80, nan)
    }

    #[inline(always)]
    fn larger(a: i16, b: i16) -> i16 {
        a.max(b)
    }

    #[inline(always)]
    fn of_lane(lane: i16) -> f32 {
        Logit::to_f32(bf16::from_bits(lanes::turned(lane) as u16))
    }
}

impl Logit for f16 {
    const NEG_INFINITY: Self = f16::NEG_INFINITY;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        lanes::from_f16(self)
    }

    type Lane = i16;

    #[inline(always)]
    fn lanes<I: Vector>(block: &[f16; BLOCK], nan: &mut [u32; LANES]) -> [i16; GROUP] {
        lanes::narrow_lanes(|i| block[i].to_bits(), 0x7c00, nan)
    }

    #[inline(always)]
    fn larger(a: i16, b: i16) -> i16 {
        a.max(b)
    }

    #[inline(always)]
    fn of_lane(lane: i16) -> f32 {
        Logit::to_f32(f16::from_bits(lanes::turned(lane) as u16))
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
