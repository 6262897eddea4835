//! The functions that draw with receipts: they return everything that it takes to check a draw.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arrays::{Logits, with_element};
use super::errors::{guarded, row_error};
use super::functions::{current_isa, for_each_row, pin};
use super::inputs::Inputs;
use super::parameters::{Parameters, read_threads};
use crate::error::{RowError, reserve};
use crate::isa::Isa;
use crate::kernels::draw::target;
use crate::params::Params;
use crate::recipe;
use crate::rng::{Place, words};

/// What a receipt says of a draw, in the order of the fields of the class in `_receipts.py`.
struct Receipt {
    token: usize,
    place: Place,
    word: u64,
    total: u64,
    target: u64,
    start: u64,
    stop: u64,
    mirostat_mu: Option<f64>,
    adaptive_average: Option<f64>,
}

impl Receipt {
    fn into_tuple(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        let Receipt { token, place: Place { seed, stream, position }, word, total, target, start, stop, .. } = self;
        let (mu, average) = (self.mirostat_mu, self.adaptive_average);
        (token, seed, stream, position, word, total, target, start, stop, mu, average).into_pyobject(py)
    }
}

/// How a call draws.
struct Draw<'a> {
    isa: Isa,
    parameters: &'a Parameters,
    seed: u64,
    position: u64,
    threads: Option<usize>,
    /// True if a row without an answer gets no receipt; false if it raises an error.
    mark: bool,
}

impl Draw<'_> {
    /// Draws from each row. Returns one tuple with the fields of a receipt, or None; for a batch, a list of them.
    fn run<'py>(&self, py: Python<'py>, logits: &Logits<'py>, inputs: &Inputs<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shape = logits.shape;
        let mut receipts: Vec<Option<Receipt>> = Vec::new();
        reserve(&mut receipts, shape.rows).map_err(row_error)?;
        receipts.resize_with(shape.rows, || None);
        with_element!(logits, |T| {
            let _pins = (pin(logits)?, inputs.pin()?);
            let (rows, contexts) = (logits.rows::<T>()?, inputs.contexts()?);
            for_each_row::<T, _>(py, shape, rows, self.threads, receipts.iter_mut(), |row, b, receipt, scratch| {
                let params = self.parameters.get(b);
                let place @ Place { seed, stream, position } = self.parameters.place(b, self.seed, self.position);
                let words = words(seed, stream, position);
                let drawn = recipe::sample_with_interval(self.isa, row, &params, &contexts.get(b), words, scratch);
                *receipt = match drawn {
                    Ok(drawn) => Some(Receipt {
                        token: drawn.token,
                        place,
                        word: words.draw,
                        total: drawn.total,
                        target: target(words.draw, drawn.total),
                        start: drawn.start,
                        stop: drawn.start + drawn.mass,
                        mirostat_mu: mu_in_use(&params),
                        adaptive_average: average_in_use(&params),
                    }),
                    Err(error) if error == RowError::OutOfMemory || !self.mark => return Err(error),
                    Err(_) => None,
                };
                Ok(())
            })?;
        });
        let mut receipts =
            receipts.into_iter().map(|receipt| receipt.map(|receipt| receipt.into_tuple(py)).transpose());
        match shape.is_batch {
            true => Ok(receipts.collect::<PyResult<Vec<_>>>()?.into_pyobject(py)?.into_any()),
            false => Ok(receipts.next().transpose()?.flatten().into_pyobject(py)?.into_any()),
        }
    }
}

/// Returns the limit of surprise that mirostat has, if it is on.
fn mu_in_use(params: &Params) -> Option<f64> {
    (params.mirostat != 0).then(|| params.mirostat_mu.unwrap_or(2.0 * params.mirostat_tau))
}

/// Returns the average that adaptive-p has, if it is on.
fn average_in_use(params: &Params) -> Option<f64> {
    (params.adaptive_target >= 0.0).then(|| params.adaptive_average.unwrap_or(params.adaptive_target))
}

/// Draws like `sample`.
#[pyfunction]
pub(super) fn sample_with_receipt<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa) = (logits.py(), current_isa()?);
        let (keywords, mut parameters) = (parameters, Parameters::default());
        let how = parameters.read_with_how(keywords)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        parameters.check(py, logits.shape)?;
        let seed = parameters.fresh_seed(logits.shape)?;
        let (threads, mark) = (how.threads, how.mark);
        let draw = Draw { isa, parameters: &parameters, seed, position: 0, threads, mark };
        draw.run(py, &logits, &inputs)
    })
}

/// Draws for a `Sampler`, like `draw`.
#[pyfunction]
pub(super) fn draw_with_receipt<'py>(
    logits: &Bound<'py, PyAny>,
    params: &Bound<'py, Parameters>,
    seed: u64,
    position: u64,
    inputs: Option<&Bound<'py, PyDict>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, threads) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let parameters = params.get();
        let (logits, inputs) = parameters.read_logits_with(inputs, logits)?;
        parameters.check(py, logits.shape)?;
        let draw = Draw { isa, parameters, seed, position, threads, mark: false };
        draw.run(py, &logits, &inputs)
    })
}
