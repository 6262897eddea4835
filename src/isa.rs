//! Instruction sets: which ones this CPU has, which one is used, and the macro that compiles a function for each of them.
//!
//! An [`Isa`] is a proof that the CPU has the instruction set, because only functions that have asked the CPU can make one.
//! `per_isa!` turns a function into one that takes an `Isa` and runs the clone that was compiled for it, so there is one
//! dispatch per row. Every loop over a row must be compiled for the wider registers too. It is, if it is in a function that is
//! `#[inline(always)]`, or in a closure that `Vector::run` calls. The code in between, which only decides what to do next, may
//! be compiled for the baseline. `.ci/vector_code.py` sees that no loop is.
//!
//! All clones compute the same bits. Rust never fuses a multiplication and an addition on its own, and the kernels use only
//! operations that IEEE 754 rounds correctly. What IEEE 754 leaves open is the environment, which `per_isa!` sets for the
//! duration of the call (see `FloatEnvironment`).
//!
//! All `unsafe` code of the crate's core is here, in `isa/vector.rs` and in `isa/neon.rs`.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod neon;
mod vector;

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub(crate) use vector::{Avx2, Avx512};
pub(crate) use vector::{Portable, Vector};

/// The environment variable that chooses the instruction set.
pub const VARIABLE: &str = "TOKSAMPLE_ISA";

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Every value that [`VARIABLE`] may have on some machine.
const NAMES: [&str; 3] = ["portable", "avx2", "avx512"];

impl Isa {
    /// The baseline of the target: SSE2 on x86-64, NEON on aarch64.
    pub const PORTABLE: Isa = Isa(Kind::Portable);

    /// Returns the instruction sets of this CPU, with the best one last.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))] // only x86-64 has others
        let mut found = vec![Isa::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            // These are the same lists as in `per_isa!` below. AVX-512 is used from Ice Lake and Zen 4 on.
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi2");
            if avx2 {
                found.push(Isa(Kind::Avx2));
            }
            if avx512 {
                found.push(Isa(Kind::Avx512));
            }
        }
        found
    }

    /// Returns the instruction set in use: that of [`VARIABLE`] if it is set, and otherwise the best of the CPU. It is chosen
    /// once for each process.
    pub fn current() -> Result<Isa, IsaError> {
        static CURRENT: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        CURRENT
            .get_or_init(|| Isa::choose(std::env::var_os(VARIABLE).map(|v| v.to_string_lossy().into_owned())))
            .clone()
    }

    fn choose(wanted: Option<String>) -> Result<Isa, IsaError> {
        let available = Isa::available();
        match wanted {
            None => Ok(available[available.len() - 1]),
            Some(name) => available.into_iter().find(|isa| isa.name() == name).ok_or(IsaError { name }),
        }
    }

    /// Returns "portable", "avx2" or "avx512".
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => NAMES[0],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => NAMES[1],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => NAMES[2],
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// The error for a [`VARIABLE`] that names an instruction set which does not exist, or which this CPU lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    name: String,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
        let why = if NAMES.contains(&self.name.as_str()) { ", which this CPU lacks" } else { "" };
        write!(f, "{VARIABLE} must be one of {}, got {:?}{why}", available.join(", "), self.name)
    }
}

impl std::error::Error for IsaError {}

/// Sets the floating-point environment that Rust expects (round to nearest, subnormals kept) until it is dropped.
///
/// Another library in the process may have told the CPU to round in another way or to flush subnormal numbers to zero:
/// `torch.set_flush_denormal(True)` does, and so does a shared library that was linked with `-ffast-math`. Different subnormal
/// logits would then compare as equal, and a seed would give another token. Rust itself does not allow such an environment.
pub(crate) struct FloatEnvironment {
    #[cfg(target_arch = "x86_64")]
    changed: Option<u32>,
}

#[cfg(target_arch = "x86_64")]
impl FloatEnvironment {
    /// The default: all exceptions are masked, rounding is to nearest, and subnormals are kept.
    const DEFAULT: u32 = 0x1f80;
    /// The bits that only record which exceptions occurred.
    const STICKY: u32 = 0x3f;

    /// Restores the default if it was changed, and puts the changed environment back when it is dropped.
    #[inline]
    pub(crate) fn default_until_drop() -> Self {
        let found = Self::read();
        if found & !Self::STICKY == Self::DEFAULT {
            return FloatEnvironment { changed: None };
        }
        Self::write(Self::DEFAULT);
        FloatEnvironment { changed: Some(found) }
    }

    #[inline]
    fn read() -> u32 {
        let mut mxcsr = 0u32;
        // SAFETY: stmxcsr stores four bytes at the given address, which is the address of a live u32.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags)) };
        mxcsr
    }

    #[inline]
    fn write(mxcsr: u32) {
        // SAFETY: ldmxcsr loads four bytes from a live u32. Its reserved bits are zero, because it is the default or was read.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FloatEnvironment {
    #[inline]
    fn drop(&mut self) {
        if let Some(found) = self.changed {
            Self::write(found);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl FloatEnvironment {
    /// Nothing is checked on this architecture.
    #[inline]
    pub(crate) fn default_until_drop() -> Self {
        FloatEnvironment {}
    }
}

/// Compiles a function for every instruction set. `fn name<I: Vector, T: Logit>(args) -> R { body }` becomes
/// `fn name<T: Logit>(isa: Isa, args) -> R`, which runs the clone for `isa`. The body may use the operations of `I`.
macro_rules! per_isa {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident<$i:ident: Vector, $t:ident: $bound:path>(
        $($arg:ident: $type:ty),* $(,)?
    ) -> $ret:ty $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $visibility fn $name<$t: $bound>(isa: $crate::isa::Isa, $($arg: $type),*) -> $ret {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)] // not every body uses it
            fn body<$i: $crate::isa::Vector, $t: $bound>($($arg: $type),*) -> $ret $body

            // This must not be inlined, or parts of it could move to before the environment is restored.
            #[inline(never)]
            fn portable<$t: $bound>($($arg: $type),*) -> $ret {
                body::<$crate::isa::Portable, $t>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2<$t: $bound>($($arg: $type),*) -> $ret {
                body::<$crate::isa::Avx2, $t>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi2")]
            fn avx512<$t: $bound>($($arg: $type),*) -> $ret {
                body::<$crate::isa::Avx512, $t>($($arg),*)
            }

            let _environment = $crate::isa::FloatEnvironment::default_until_drop();
            match isa.kind() {
                $crate::isa::Kind::Portable => portable($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind is made only after the CPU was seen to have these features.
                $crate::isa::Kind::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind is made only after the CPU was seen to have these features.
                $crate::isa::Kind::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_first_and_the_best_is_the_default() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::PORTABLE);
        assert_eq!(Isa::choose(None), Ok(available[available.len() - 1]));
        for isa in available {
            assert_eq!(Isa::choose(Some(isa.name().into())), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = Isa::choose(Some("sse9".into())).unwrap_err().to_string();
        assert!(error.starts_with("TOKSAMPLE_ISA must be one of portable"), "{error}");
        assert!(error.ends_with("got \"sse9\""), "{error}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_changed_float_environment_is_restored_for_the_call_and_given_back() {
        let flush_to_zero = FloatEnvironment::DEFAULT | 0x8040;
        FloatEnvironment::write(flush_to_zero);
        let inside = {
            let _environment = FloatEnvironment::default_until_drop();
            FloatEnvironment::read() & !FloatEnvironment::STICKY
        };
        let after = FloatEnvironment::read() & !FloatEnvironment::STICKY;
        FloatEnvironment::write(FloatEnvironment::DEFAULT);
        assert_eq!((inside, after), (FloatEnvironment::DEFAULT, flush_to_zero));
    }
}
