//! Draws of several tokens from each row.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Logits, Out, slice_of_new, with_element, zeros};
use super::errors::guarded;
use super::functions::{current_isa, for_each_row, pin};
use super::inputs::Inputs;
use super::parameters::{Parameters, read_threads};
use crate::error::RowError;
use crate::recipe;

/// Draws `n` tokens from each row, with the parameters of a call of `sample`.
#[pyfunction]
pub(super) fn sample_several<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
    n: usize,
    replacement: bool,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let py = logits.py();
        let (keywords, mut parameters) = (parameters, Parameters::default());
        let how = parameters.read_with_how(keywords)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        let shape = logits.shape;
        parameters.check(py, shape)?;
        let seed = parameters.fresh_seed(shape)?;
        let mut dimensions = [0; 2];
        let dimensions = shape.wide(n, &mut dimensions);
        let out = how.out.as_ref().map(|out| Out::read(out, "int64", dimensions)).transpose()?;
        let call = Call { parameters: &parameters, seed, position: 0, threads: how.threads, mark: how.mark, out };
        call.draw(py, &logits, &inputs, n, replacement)
    })
}

/// Draws `n` tokens from each row for a `Sampler`, whose parameters were read when it was created.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn draw_several<'py>(
    logits: &Bound<'py, PyAny>,
    params: &Bound<'py, Parameters>,
    seed: u64,
    position: u64,
    inputs: Option<&Bound<'py, PyDict>>,
    num_threads: Option<&Bound<'py, PyAny>>,
    n: usize,
    replacement: bool,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, threads) = (logits.py(), read_threads(num_threads)?);
        let parameters = params.get();
        let (logits, inputs) = parameters.read_logits_with(inputs, logits)?;
        parameters.check(py, logits.shape)?;
        let call = Call { parameters, seed, position, threads, mark: false, out: None };
        call.draw(py, &logits, &inputs, n, replacement)
    })
}

/// What a call says beside the logits and the number of tokens.
struct Call<'a, 'py> {
    parameters: &'a Parameters,
    /// The seed and the position of a row that has none of its own.
    seed: u64,
    position: u64,
    threads: Option<usize>,
    /// True if a row without an answer gets -1; false if it raises an error.
    mark: bool,
    out: Option<Out<'a, 'py>>,
}

impl<'py> Call<'_, 'py> {
    /// Returns an int64 array of shape (n,), or (B, n) for a batch, or `out`.
    fn draw(
        self,
        py: Python<'py>,
        logits: &Logits<'py>,
        inputs: &Inputs<'py>,
        n: usize,
        replacement: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Call { parameters, seed, position, threads, mark, out } = self;
        let (isa, shape) = (current_isa()?, logits.shape);
        let mut dimensions = [0; 2];
        let dimensions = shape.wide(n, &mut dimensions);
        let mut tokens = zeros::<i64>(py, dimensions)?;
        with_element!(logits, |T| {
            let _pins = (pin(logits)?, inputs.pin()?);
            if let Some(out) = &out {
                out.take::<i64>("int64", dimensions, logits)?; // checked before the work, so that an error comes early
            }
            let (rows, contexts) = (logits.rows::<T>()?, inputs.contexts()?);
            let written = slice_of_new(&mut tokens).chunks_exact_mut(n);
            for_each_row::<T, _>(py, shape, rows, threads, written, |row, b, tokens, scratch| {
                let draws = parameters.draws(b, seed, position, (n, replacement));
                let params = parameters.get(b);
                match recipe::sample_several(isa, row, &params, &contexts.get(b), draws, tokens, scratch) {
                    Err(error) if mark && error != RowError::OutOfMemory => tokens.fill(-1),
                    done => done?,
                }
                Ok(())
            })?;
        });
        let Some(out) = out else { return Ok(tokens.into_any()) };
        let tokens = slice_of_new(&mut tokens);
        out.take::<i64>("int64", dimensions, logits)?.slice().copy_from_slice(tokens);
        Ok(out.object.clone())
    }
}
