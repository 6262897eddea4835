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

    /// Returns eight values whose maximum is the maximum of the block, and sets a lane of `nan` if it contains a NaN.
    fn lanes<I: Vector>(block: &[Self; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP];

    /// Returns a block as float32, using `buffer` if it has to be widened.
    #[inline(always)]
    fn widen<'a, I: Vector>(block: &'a [Self; BLOCK], buffer: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
        // A loop over `buffer` was compiled to single numbers for aarch64.
        let mut wide = [0.0; BLOCK];
        for (wide, x) in wide.iter_mut().zip(block) {
            *wide = x.to_f32();
        }
        *buffer = wide;
        buffer
    }
}

impl Logit for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn lanes<I: Vector>(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        I::lanes(block, nan)
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

    #[inline(always)]
    fn lanes<I: Vector>(block: &[bf16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        I::lanes_of_bf16(block, nan)
    }
}

impl Logit for f16 {
    const NEG_INFINITY: Self = f16::NEG_INFINITY;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        lanes::from_f16(self)
    }

    #[inline(always)]
    fn lanes<I: Vector>(block: &[f16; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
        I::lanes_of_f16(block, nan)
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
