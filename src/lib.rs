//! toksample picks the next token from a language model's logits.
//!
//! The map, from the outside in:
//!
//! | file | its one job |
//! |---|---|
//! | `python/` | the Python bindings: arrays and parameters in, tokens and errors out |
//! | `batch.rs` | runs a function over the rows of a batch, on several threads |
//! | `recipe.rs` | one row, whole: what `sample`, `candidates`, `mask_logits` … do, step by step |
//! | `methods/` | the filters, one file each |
//! | `search.rs` | finds which tokens survive the filters, and draws one of them |
//! | `kernels/` | the steps, one file an operation |
//! | `row.rs` | a row of logits with the maximum of each block: what all of these read the logits through |
//! | `isa.rs` | which instruction sets there are, and the macro that compiles a recipe for each; `isa/vector.rs` has what differs |
//! | `rng.rs` | Philox4x64-10, the random word of a (seed, stream, position) |
//! | `logit.rs`, `lanes.rs` | the element types; arithmetic on blocks of them |
//! | `params.rs`, `error.rs` | parameters and their ranges, row errors |
//!
//! Everything is exact: the same row, parameters and random word give the same token whatever the instruction set, the
//! batch or the number of threads, and the same token as `toksample.reference`, which is written in numpy. The reason is
//! the integer mass of `kernels/mass.rs`; read that file first.

pub mod batch;
pub mod error;
pub mod isa;
mod kernels;
mod lanes;
pub mod logit;
mod methods;
pub mod params;
pub mod recipe;
pub mod rng;
mod row;
mod search;

pub use kernels::mass::MAX_TOKENS;

#[cfg(feature = "python")]
mod python;
