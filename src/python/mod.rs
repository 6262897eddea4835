//! The Python bindings: arrays and parameters in, tokens and errors out. No computation.
//!
//! From the outside in; each file uses only files below it:
//!
//! | file | its one job |
//! |---|---|
//! | `functions.rs` | the functions of the module `_native`, each from its arguments to its result |
//! | `parameters.rs` | parameters: one value, or one for each row |
//! | `inputs.rs` | histories, biases and bitmasks |
//! | `rules.rs` | rules for some of the tokens |
//! | `arrays.rs` | numpy arrays as rows that the kernels read and write |
//! | `errors.rs` | Python exceptions for what can go wrong |
//! | `dlpack.rs` | bfloat16 in a DLPack capsule |
//!
//! # The order of a call
//!
//! A call can run Python code: the `__float__` of a parameter, the `__array__` of the logits, a finalizer when memory is
//! allocated. Such code may resize the logits or change the type of `out`. So each function does its work in this order:
//!
//! 1. read the parameters, convert the logits, and allocate the results, all of which may run Python code;
//! 2. take pointers, shapes, strides and types, and check them all (again), without running any;
//! 3. run the kernels, without the GIL if there is enough to do;
//! 4. return the results.
//!
//! Nothing of step 1 is trusted in step 3. `arrays.rs` says what other threads can and cannot do during step 3.
//!
//! # Fork
//!
//! Everything that is looked up once for the life of the process is looked up by `look_up_once`, which the package calls at
//! the end of its import: so no thread can be in the middle of it when another one forks. See also `batch.rs`.

mod arrays;
mod dlpack;
mod errors;
mod functions;
mod inputs;
mod parameters;
mod rules;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::dlpack::bfloat16_as_bits;
    #[pymodule_export]
    use super::functions::{
        Counter, after_fork, argmax, available_isas, before_fork, candidates, draw, get_num_threads, isa, log_softmax,
        look_up_once, mask_logits, sample, set_num_threads, softmax, top_k,
    };
    #[pymodule_export]
    use super::parameters::Parameters;
}
