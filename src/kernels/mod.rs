//! The steps that the work on a row is made of, one file for each operation.
//!
//! A kernel is a safe loop over fixed blocks, compiled for each instruction set (`isa.rs`). A kernel that several callers
//! share runs by `Vector::run`, so that there is one copy of it. The small ones are `#[inline(always)]`, and become a part of
//! the caller.
//!
//! # If another thread writes to the row
//!
//! A row that comes from Python is in the caller's memory. Another thread of the caller may write to it while the kernels read
//! it, and nothing that costs as little as one read can prevent that. Such a call may draw a wrong token, or it may end in
//! `RowError::Changed`. It does not panic, loop forever or touch other memory, because the kernels follow four rules:
//!
//! 1. No address depends on a logit. A block or a token is found by its place. Places that must be remembered between two
//!    passes are ids inside keys, in memory that belongs to the call. The one index that is computed from a weight
//!    (`top_p::bucket`) is clamped.
//! 2. A logit may have any bits each time it is read. The conversions are arithmetic on bits, or they saturate; none is
//!    unchecked.
//! 3. Where a second read must agree with the first (the block holds its maximum, the masses reach the target), the answer is
//!    an `Option` or a `Result`. It is never left to `expect` or `unreachable!`.
//! 4. A loop that looks again has a bound that no logit can change. A ledger is refined by degrees, of which there are a few.
//!    A survey widens its doubt until it covers the whole row. A selection splits keys, and keys always differ because they contain the ids.
//!
//! Rust calls such a race undefined behavior, and LLVM does not guarantee anything about the value that a racing read returns.
//! The rules rely on what a compiled read can do, which is to return the old bits, the new bits or a mixture of them. The
//! tests are `changing_rows` in `recipe.rs` and `tests/test_soundness.py`.

pub mod adaptive;
pub mod argmax;
pub mod beside;
pub mod candidates;
pub mod draw;
pub mod ledger;
pub mod map;
pub mod mass;
pub mod order;
pub mod prefix;
pub mod replay;
pub mod select;
pub mod series;
pub mod softmax;
pub mod spread;
pub mod surprise;
pub mod survey;
pub mod tail;
pub mod top_k;
pub mod top_p;
pub mod without;
