//! The Python bindings: arrays and parameters go in, tokens and errors come out. Nothing is computed here.
//!
//! The files, from the outside in. Each one uses only files below it:
//!
//! | file | its one job |
//! |---|---|
//! | `functions.rs` | the functions of the module `_native`, but for those of the next five |
//! | `logprobs.rs` | the functions that say how likely tokens are |
//! | `receipts.rs` | the functions that draw with receipts |
//! | `several.rs` | the functions that draw several tokens from a row |
//! | `sets.rs` | the functions that list or read kept sets |
//! | `speculation.rs` | the functions that verify a draft |
//! | `parameters.rs` | parameters: one value, or one for each row |
//! | `inputs.rs` | histories, biases and bitmasks |
//! | `rules.rs` | rules for some of the tokens |
//! | `arrays.rs` | numpy arrays as rows that the kernels read and write |
//! | `errors.rs` | the Python exceptions that the bindings raise |
//! | `dlpack.rs` | lets numpy read bfloat16 tensors through DLPack |
//!
//! # The order of a call
//!
//! A call can run Python code: the `__float__` of a parameter, the `__array__` of the logits, or a finalizer when memory is
//! allocated. Such code may resize the logits or change the type of `out`. So each function does its work in this order:
//!
//! 1. Read the parameters, convert the logits and allocate the results. All of this may run Python code.
//! 2. Take pointers, shapes, strides and types, and check them all (again), without running Python code.
//! 3. Run the kernels, without the GIL if there is enough to do.
//! 4. Return the results.
//!
//! Step 3 trusts nothing that was read in step 1. `arrays.rs` says what other threads can and cannot do during step 3.
//!
//! # Fork
//!
//! Some things are computed or looked up once and kept for the life of the process. `look_up_once` does all of them, and the
//! package calls it at the end of its import. So no thread can be in the middle of one when another thread forks. See also
//! `batch.rs`.

mod arrays;
mod dlpack;
mod errors;
mod functions;
mod inputs;
mod logprobs;
mod parameters;
mod receipts;
mod rules;
mod sets;
mod several;
mod speculation;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::dlpack::bfloat16_as_bits;
    #[pymodule_export]
    use super::functions::{
        Counter, after_fork, argmax, available_isas, before_fork, draw, draw_with_odds, get_num_threads, isa,
        log_softmax, look_up_once, mask_logits, sample, set_num_threads, softmax, top_k,
    };
    #[pymodule_export]
    use super::logprobs::{draw_with_logprobs, sample_with_logprobs, score};
    #[pymodule_export]
    use super::parameters::Parameters;
    #[pymodule_export]
    use super::receipts::{draw_with_receipt, sample_with_receipt};
    #[pymodule_export]
    use super::sets::{candidates, replay};
    #[pymodule_export]
    use super::several::{draw_several, sample_several};
    #[pymodule_export]
    use super::speculation::{draw_by_race, verify};
}
