//! toksample picks the next token from a language model's logits.
//!
//! The map, from the outside in. Each file uses only files below it.
//!
//! | file | its one job |
//! |---|---|
//! | `python/` | the Python bindings: arrays and parameters in, tokens and errors out |
//! | `batch.rs` | runs a function over the rows of a batch, on several threads |
//! | `race.rs` | draws a token by a race, so that a draft and its target agree more often |
//! | `speculation.rs` | whether the token of a draft is accepted, and what comes instead |
//! | `recipe.rs` | what `sample`, `candidates`, `mask_logits` … do with one row, compiled for each instruction set |
//! | `methods/` | the methods, one file for each: some change logits, and the others, the filters, drop tokens |
//! | `search/` | finds which tokens survive the filters, from a list (`list.rs`) or by passes (`passes.rs`), and draws one |
//! | `kernels/` | the loops over a row, one file for each operation |
//! | `row.rs` | a row of logits, as it is in memory or changed: everything above reads the logits through it |
//! | `changes.rs` | what is changed in a row: which tokens are not allowed, and which logits were edited |
//! | `repeats.rs` | where in the history its last tokens stand as well |
//! | `logit.rs` | the element types |
//! | `isa.rs` | which instruction sets there are, and the macro that compiles a recipe for each; `isa/` has what differs |
//! | `lanes.rs` | arithmetic on blocks of values |
//! | `logprobs.rs` | what a draw says of its token beside its id |
//! | `rng.rs` | Philox4x64-10, the random word of a seed, a stream and a position |
//! | `context.rs` | what a caller knows about the tokens of a draw: history, biases, a bitmask and other rules |
//! | `params.rs`, `steps.rs` | the parameters and their ranges; the order in which they are applied |
//! | `error.rs` | what can be wrong with a row |
//!
//! Everything is exact: the same row, parameters and random word give the same token whatever the instruction set, the
//! batch or the number of threads, and the same token as `toksample.reference`, which is written in numpy. The reason is
//! the integer mass of `kernels/mass.rs`; read that file first.

pub mod batch;
mod changes;
pub mod context;
pub mod error;
pub mod isa;
mod kernels;
mod lanes;
pub mod logit;
pub mod logprobs;
mod methods;
pub mod params;
pub mod race;
pub mod recipe;
mod repeats;
pub mod rng;
mod row;
mod search;
pub mod speculation;
pub mod steps;

pub use kernels::mass::MAX_TOKENS;

#[cfg(feature = "python")]
mod python;
