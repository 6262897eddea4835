//! The functions of the module `_native` that say how likely tokens are.

use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::arrays::{ArrayElement, Logits, Shape, slice_of_new, with_element, zeros};
use super::errors::{call_check, guarded, row_error, value_error};
use super::functions::{current_isa, for_each_row, pin};
use super::inputs::Inputs;
use super::parameters::{Parameters, Reals, read_threads};
use crate::error::{RowError, reserve};
use crate::logprobs::{Logprobs, Mode};
use crate::recipe;

/// What a caller wants to know of each row.
struct Wanted {
    mode: Mode,
    /// How many of the most probable tokens.
    top: usize,
    /// Other tokens: so many for each row, one row after another. None if none are asked for.
    given: Option<(usize, Vec<i64>)>,
}

impl Wanted {
    /// Reads the arguments. May run Python code.
    fn read(
        logprobs: &Bound<'_, PyAny>,
        mode: &Bound<'_, PyAny>,
        ids: &Bound<'_, PyAny>,
        shape: Shape,
    ) -> PyResult<Self> {
        if let Ok(mode) = mode.cast::<PyString>()
            && let Some(mode) = mode.to_str().ok().and_then(mode_of)
            && logprobs.is_exact_instance_of::<PyInt>()
            && let Some(top) = logprobs.extract::<usize>().ok().filter(|&top| top <= shape.tokens)
            && ids.is_none()
        {
            return Ok(Wanted { mode, top, given: None });
        }
        let arguments = (logprobs, mode, ids, shape.rows, shape.is_batch, shape.tokens);
        let (top, is_processed, is_logits, given): (usize, bool, bool, Option<Bound<'_, PyArray2<i64>>>) =
            call_check(logprobs.py(), "wanted_logprobs", arguments)?.extract()?;
        let read = |given: Bound<'_, PyArray2<i64>>| {
            Ok::<_, PyErr>((given.shape()[1], ids_of(&given.call_method0("ravel")?, shape.tokens)?))
        };
        let given = given.map(read).transpose()?;
        if top > shape.tokens || given.as_ref().is_some_and(|(width, given)| given.len() != width * shape.rows) {
            return Err(value_error("logprobs could not be read"));
        }
        Ok(Wanted { mode: Mode { is_processed, is_logits }, top, given })
    }
}

/// The modes that have a name.
fn mode_of(name: &str) -> Option<Mode> {
    let (is_processed, is_logits) = match name {
        "raw_logprobs" => (false, false),
        "raw_logits" => (false, true),
        "processed_logprobs" => (true, false),
        "processed_logits" => (true, true),
        _ => return None,
    };
    Some(Mode { is_processed, is_logits })
}

/// Copies an array of token ids.
fn ids_of(array: &Bound<'_, PyAny>, tokens: usize) -> PyResult<Vec<i64>> {
    let ids = array.cast::<PyArray1<i64>>()?.to_vec().map_err(value_error)?;
    match ids.iter().all(|&id| (0..tokens as i64).contains(&id)) {
        true => Ok(ids),
        false => Err(value_error("token ids must be in the row")),
    }
}

/// The arrays that a call returns.
struct Results<'py> {
    tokens: Bound<'py, PyArrayDyn<i64>>,
    logprobs: Bound<'py, PyArrayDyn<f64>>,
    ranks: Bound<'py, PyArrayDyn<i64>>,
    top_ids: Bound<'py, PyArrayDyn<i64>>,
    top_logprobs: Bound<'py, PyArrayDyn<f64>>,
    given: Option<Given<'py>>,
}

/// The ids of the tokens that are asked for, and what is said of them.
type Given<'py> = (Bound<'py, PyArrayDyn<i64>>, Bound<'py, PyArrayDyn<f64>>);

/// The places of one row in them.
struct Places<'a> {
    token: &'a mut i64,
    logprobs: Logprobs<'a>,
}

impl<'py> Results<'py> {
    /// Allocates the arrays. May run Python code.
    fn new(py: Python<'py>, shape: Shape, wanted: &Wanted) -> PyResult<Self> {
        let (rows, mut dimensions) = ([shape.rows], [0; 2]);
        let given = match &wanted.given {
            Some((width, ids)) => {
                let dimensions = shape.wide(*width, &mut dimensions);
                let mut given_ids = zeros(py, dimensions)?;
                slice_of_new(&mut given_ids).copy_from_slice(ids);
                Some((given_ids, zeros(py, dimensions)?))
            }
            None => None,
        };
        let dimensions = shape.wide(wanted.top, &mut dimensions);
        Ok(Results {
            tokens: zeros(py, &rows)?,
            logprobs: zeros(py, &rows)?,
            ranks: zeros(py, &rows)?,
            top_ids: zeros(py, dimensions)?,
            top_logprobs: zeros(py, dimensions)?,
            given,
        })
    }

    /// Returns the places of each row.
    fn places<'a>(&'a mut self, mode: Mode) -> Result<Vec<Places<'a>>, RowError> {
        let tokens = slice_of_new(&mut self.tokens);
        let rows = tokens.len();
        let mut top_ids = split(slice_of_new(&mut self.top_ids), rows);
        let mut top_logprobs = split(slice_of_new(&mut self.top_logprobs), rows);
        let (given_ids, given_logprobs) = match &mut self.given {
            Some((ids, logprobs)) => (slice_of_new(ids), slice_of_new(logprobs)),
            None => (&mut [][..], &mut [][..]),
        };
        let (mut given_ids, mut given_logprobs) = (split(given_ids, rows), split(given_logprobs, rows));
        let each = tokens.iter_mut().zip(slice_of_new(&mut self.logprobs)).zip(slice_of_new(&mut self.ranks));
        let mut places = Vec::new();
        reserve(&mut places, rows)?;
        for ((token, logprob), rank) in each {
            let (top_ids, top_logprobs) = (top_ids(), top_logprobs());
            let (given_ids, given_logprobs) = (&*given_ids(), given_logprobs());
            let logprobs = Logprobs { mode, logprob, rank, top_ids, top_logprobs, given_ids, given_logprobs };
            places.push(Places { token, logprobs });
        }
        Ok(places)
    }

    /// Returns the arrays as the fields of `Sampled`: with numbers in place of arrays of one for a single row.
    fn into_fields(mut self, py: Python<'py>, shape: Shape) -> PyResult<Bound<'py, PyAny>> {
        let (given_ids, given_logprobs) = self.given.unzip();
        if shape.is_batch {
            let own = (self.tokens, self.logprobs, self.ranks);
            let fields = (own.0, own.1, own.2, self.top_ids, self.top_logprobs, given_ids, given_logprobs);
            return Ok(fields.into_pyobject(py)?.into_any());
        }
        let (token, rank) = (slice_of_new(&mut self.tokens)[0], slice_of_new(&mut self.ranks)[0]);
        let logprob = slice_of_new(&mut self.logprobs)[0];
        let fields = (token, logprob, rank, self.top_ids, self.top_logprobs, given_ids, given_logprobs);
        Ok(fields.into_pyobject(py)?.into_any())
    }
}

/// Returns a function that gives one of so many equal parts after another.
fn split<'a, P>(values: &'a mut [P], parts: usize) -> impl FnMut() -> &'a mut [P] {
    let width = values.len() / parts.max(1);
    let mut rest = values;
    move || {
        let (first, others) = std::mem::take(&mut rest).split_at_mut(width);
        rest = others;
        first
    }
}

/// How a call draws.
struct Draws<'a, 'py> {
    parameters: &'a Parameters,
    inputs: Inputs<'py>,
    seed: u64,
    position: u64,
    threads: Option<usize>,
    mark: bool,
}

/// Draws a token from each row. Returns the fields of `Sampled`.
fn draw_and_describe<'py>(
    given: &Bound<'py, PyAny>,
    logits: Logits<'py>,
    draws: Draws<'_, 'py>,
    wanted: &Wanted,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, isa, shape) = (given.py(), current_isa()?, logits.shape);
    let Draws { parameters, inputs, seed, position, threads, mark } = draws;
    parameters.check(py, shape)?;
    // Rows of float64 were edited before they were rounded, so the raw ones are read again.
    let raw = if logits.is_edited && !wanted.mode.is_processed { Some(Logits::read(given)?) } else { None };
    if raw.as_ref().is_some_and(|raw| (raw.shape, raw.element) != (shape, logits.element)) {
        return Err(value_error("logits must keep their shape and type during the call, got an array that changed"));
    }
    let mut results = Results::new(py, shape, wanted)?;
    with_element!(logits, |T| {
        let _pins = (pin(&logits)?, raw.as_ref().map(pin).transpose()?, inputs.pin()?);
        let (rows, contexts) = (logits.rows::<T>()?, inputs.contexts()?);
        let raw = raw.as_ref().map(Logits::rows::<T>).transpose()?;
        let places = results.places(wanted.mode).map_err(row_error)?;
        for_each_row::<T, _>(py, shape, rows, threads, places.into_iter(), |row, b, mut places, scratch| {
            let drawn = recipe::sample_with_logprobs(
                isa,
                row,
                raw.map(|raw| T::slice(raw.row(b))),
                &parameters.get(b),
                &contexts.get(b),
                parameters.words(b, seed, position),
                places.logprobs.lend(),
                scratch,
            );
            match drawn {
                Ok(id) => *places.token = id as i64,
                Err(error) if error == RowError::OutOfMemory || !mark => return Err(error),
                Err(_) => {
                    *places.token = -1;
                    places.logprobs.clear();
                }
            }
            Ok(())
        })?;
    });
    results.into_fields(py, shape)
}

/// Draws tokens and describes them. Returns the fields of `Sampled`.
#[pyfunction]
pub(super) fn sample_with_logprobs<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
    logprobs: &Bound<'py, PyAny>,
    mode: &Bound<'py, PyAny>,
    token_ids: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (given, keywords, mut parameters) = (logits, parameters, Parameters::default());
        let how = parameters.read_with_how(keywords)?;
        let (logits, inputs) = parameters.read_logits(given)?;
        let wanted = Wanted::read(logprobs, mode, token_ids, logits.shape)?;
        let seed = parameters.fresh_seed(logits.shape)?;
        let (threads, mark) = (how.threads, how.mark);
        let draws = Draws { parameters: &parameters, inputs, seed, position: 0, threads, mark };
        draw_and_describe(given, logits, draws, &wanted)
    })
}

/// Does the same for a `Sampler`, whose parameters were read when it was created.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn draw_with_logprobs<'py>(
    logits: &Bound<'py, PyAny>,
    params: &Bound<'py, Parameters>,
    seed: u64,
    position: u64,
    inputs: Option<&Bound<'py, PyDict>>,
    num_threads: Option<&Bound<'py, PyAny>>,
    logprobs: &Bound<'py, PyAny>,
    mode: &Bound<'py, PyAny>,
    token_ids: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (given, parameters, threads) = (logits, params.get(), read_threads(num_threads)?);
        let (logits, inputs) = parameters.read_logits_with(inputs, given)?;
        let wanted = Wanted::read(logprobs, mode, token_ids, logits.shape)?;
        let draws = Draws { parameters, inputs, seed, position, threads, mark: false };
        draw_and_describe(given, logits, draws, &wanted)
    })
}

/// Returns the log-probability and the rank of one token of each row.
#[pyfunction]
pub(super) fn score<'py>(
    logits: &Bound<'py, PyAny>,
    ids: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    guarded(|| {
        let (py, isa, threads) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let temperatures = Reals::temperature(temperature)?;
        let logits = Logits::read(logits)?;
        let shape = logits.shape;
        temperatures.check(shape)?;
        let temperatures = temperatures.values();
        let ids = read_ids_to_score(ids, shape)?;
        let (mut logprobs, mut ranks) = (zeros::<f64>(py, &[shape.rows])?, zeros::<i64>(py, &[shape.rows])?);
        with_element!(logits, |T| {
            let _pin = pin(&logits)?;
            let rows = logits.rows::<T>()?;
            let written = slice_of_new(&mut logprobs).iter_mut().zip(slice_of_new(&mut ranks));
            for_each_row::<T, _>(py, shape, rows, threads, written, |row, t, (logprob, rank), scratch| {
                let (found, place) = recipe::score(isa, row, ids[t] as usize, temperatures.get(t), scratch)?;
                (*logprob, *rank) = (found, place as i64);
                Ok(())
            })?;
        });
        if shape.is_batch {
            return Ok((logprobs.into_any(), ranks.into_any()));
        }
        let (logprob, rank) = (slice_of_new(&mut logprobs)[0], slice_of_new(&mut ranks)[0]);
        Ok((logprob.into_pyobject(py)?.into_any(), rank.into_pyobject(py)?.into_any()))
    })
}

/// Reads one token id for each row. May run Python code.
fn read_ids_to_score(given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<Vec<i64>> {
    let read = call_check(given.py(), "ids_to_score", (given, shape.rows, shape.is_batch, shape.tokens))?;
    let ids = ids_of(&read, shape.tokens)?;
    if ids.len() == shape.rows { Ok(ids) } else { Err(value_error("ids could not be read")) }
}
