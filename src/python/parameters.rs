//! Parameters: one value, for the only row or for all of them, or one for each row of a batch.
//!
//! Python's and numpy's own numbers are read here, if they are in their range. Everything else goes to `_parameters.py`, where the
//! numpy reference reads its parameters, too: so both accept the same values, and word their errors alike.

use numpy::npyffi::NpyTypes;
use numpy::{Element, PyArray1, PyArrayMethods};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString};

use super::arrays::{Shape, is_numpy_scalar};
use super::errors::{call_check, value_error};
use crate::params::{Params, is_share, is_temperature};
use crate::rng::draw_word;

/// One value, for the only row or for all of them, or one for each row of a batch.
pub(super) enum PerRow<P> {
    One(P),
    Many(Vec<P>),
}

impl<P: Copy> PerRow<P> {
    fn get(&self, row: usize) -> P {
        match self {
            PerRow::One(value) => *value,
            PerRow::Many(values) => values[row],
        }
    }
}

/// A number that a parameter may be.
pub(super) trait Number: Copy + Element {
    /// Reads a number of Python's or numpy's. Runs no Python code but that of a subclass.
    fn read(value: &Bound<'_, PyAny>) -> Option<Self>;
}

impl Number for f64 {
    #[inline]
    fn read(value: &Bound<'_, PyAny>) -> Option<f64> {
        let is_number = value.is_instance_of::<PyFloat>()
            || value.is_instance_of::<PyInt>()
            || is_numpy_scalar(value, NpyTypes::PyFloatingArrType_Type)
            || is_numpy_scalar(value, NpyTypes::PyIntegerArrType_Type);
        if is_number { value.extract().ok() } else { None }
    }
}

impl Number for u64 {
    #[inline]
    fn read(value: &Bound<'_, PyAny>) -> Option<u64> {
        let is_number = value.is_instance_of::<PyInt>() || is_numpy_scalar(value, NpyTypes::PyIntegerArrType_Type);
        if is_number { value.extract().ok() } else { None }
    }
}

/// A parameter as it was given, and read: its values are in their range, and their number is not known to be right yet.
pub(super) struct Parameter<'a, 'py, P> {
    name: &'static str,
    given: &'a Bound<'py, PyAny>,
    values: PerRow<P>,
}

impl<'a, 'py, P: Number + for<'b> FromPyObject<'b, 'py>> Parameter<'a, 'py, P> {
    /// Reads an argument. May run Python code.
    #[inline]
    pub(super) fn read(name: &'static str, given: &'a Bound<'py, PyAny>, holds: fn(P) -> bool) -> PyResult<Self> {
        let values = match P::read(given) {
            Some(value) if holds(value) => PerRow::One(value),
            _ => Self::read_other(name, given, holds)?,
        };
        Ok(Parameter { name, given, values })
    }

    #[cold]
    fn read_other(name: &'static str, given: &'a Bound<'py, PyAny>, holds: fn(P) -> bool) -> PyResult<PerRow<P>> {
        if let Ok(array) = given.cast_exact::<PyArray1<P>>()
            && let Ok(values) = array.to_vec()
            && values.iter().all(|&value| holds(value))
        {
            return Ok(PerRow::Many(values));
        }
        let read = call_check(given.py(), "per_row", (name, given))?;
        match read.extract::<Vec<P>>() {
            Ok(values) => Ok(PerRow::Many(values)),
            Err(_) => Ok(PerRow::One(read.extract::<P>().map_err(Into::into)?)),
        }
    }

    /// The values, if there is one, or one for each row.
    #[inline]
    fn for_rows(self, shape: Shape) -> PyResult<PerRow<P>> {
        if let PerRow::Many(values) = &self.values
            && !(shape.is_batch && values.len() == shape.rows)
        {
            let count = (self.name, self.given, values.len(), shape.rows, shape.is_batch);
            call_check(self.given.py(), "check_count", count)?;
        }
        Ok(self.values)
    }
}

/// The filters' parameters of every row, each in its range.
pub(super) struct Filters(PerRow<Params>);

/// The same, before the number of rows is known.
pub(super) struct FilterParameters<'a, 'py> {
    temperature: Parameter<'a, 'py, f64>,
    top_k: Parameter<'a, 'py, u64>,
    top_p: Parameter<'a, 'py, f64>,
    min_p: Parameter<'a, 'py, f64>,
}

impl<'a, 'py> FilterParameters<'a, 'py> {
    #[inline]
    pub(super) fn read([temperature, top_k, top_p, min_p]: [&'a Bound<'py, PyAny>; 4]) -> PyResult<Self> {
        Ok(FilterParameters {
            temperature: Parameter::read("temperature", temperature, is_temperature)?,
            top_k: Parameter::read("top_k", top_k, |_| true)?,
            top_p: Parameter::read("top_p", top_p, is_share)?,
            min_p: Parameter::read("min_p", min_p, is_share)?,
        })
    }

    #[inline]
    pub(super) fn for_rows(self, shape: Shape) -> PyResult<Filters> {
        let temperature = self.temperature.for_rows(shape)?;
        let top_k = self.top_k.for_rows(shape)?;
        let top_p = self.top_p.for_rows(shape)?;
        let min_p = self.min_p.for_rows(shape)?;
        let params = |row| Params {
            temperature: temperature.get(row),
            top_k: top_k.get(row),
            top_p: top_p.get(row),
            min_p: min_p.get(row),
        };
        if let (PerRow::One(_), PerRow::One(_), PerRow::One(_), PerRow::One(_)) = (&temperature, &top_k, &top_p, &min_p)
        {
            return Ok(Filters(PerRow::One(params(0))));
        }
        Ok(Filters(PerRow::Many((0..shape.rows).map(params).collect())))
    }
}

impl Filters {
    pub(super) fn get(&self, row: usize) -> Params {
        self.0.get(row)
    }

    /// False if every row is greedy.
    fn need_words(&self) -> bool {
        match &self.0 {
            PerRow::One(params) => params.temperature > 0.0,
            PerRow::Many(each) => each.iter().any(|params| params.temperature > 0.0),
        }
    }
}

/// The temperature of each row.
pub(super) struct Temperatures(PerRow<f64>);

impl Temperatures {
    pub(super) fn get(&self, row: usize) -> f64 {
        self.0.get(row)
    }
}

/// Reads the temperature where it is the only parameter.
pub(super) fn read_temperature<'a, 'py>(given: &'a Bound<'py, PyAny>) -> PyResult<Parameter<'a, 'py, f64>> {
    Parameter::read("temperature", given, is_temperature)
}

impl Parameter<'_, '_, f64> {
    pub(super) fn temperatures(self, shape: Shape) -> PyResult<Temperatures> {
        self.for_rows(shape).map(Temperatures)
    }
}

/// Which random word each row draws with.
pub(super) struct Words {
    seed: PerRow<u64>,
    stream: Option<PerRow<u64>>,
    position: PerRow<u64>,
}

/// The same, before the number of rows is known.
pub(super) struct WordParameters<'a, 'py> {
    seed: Option<Parameter<'a, 'py, u64>>,
    stream: Option<Parameter<'a, 'py, u64>>,
    position: Parameter<'a, 'py, u64>,
}

impl<'a, 'py> WordParameters<'a, 'py> {
    #[inline]
    pub(super) fn read(
        seed: Option<&'a Bound<'py, PyAny>>,
        stream: Option<&'a Bound<'py, PyAny>>,
        position: &'a Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        Ok(WordParameters {
            seed: seed.map(|seed| Parameter::read("seed", seed, |_| true)).transpose()?,
            stream: stream.map(|stream| Parameter::read("stream", stream, |_| true)).transpose()?,
            position: Parameter::read("position", position, |_| true)?,
        })
    }

    #[inline]
    pub(super) fn for_rows(self, filters: &Filters, shape: Shape) -> PyResult<Words> {
        Ok(Words {
            seed: match self.seed {
                Some(seed) => seed.for_rows(shape)?,
                // To ask for entropy takes longer than a short greedy row.
                None if !filters.need_words() => PerRow::One(0),
                None => PerRow::One(getrandom::u64().map_err(|e| PyOSError::new_err(e.to_string()))?),
            },
            stream: self.stream.map(|stream| stream.for_rows(shape)).transpose()?,
            position: self.position.for_rows(shape)?,
        })
    }
}

impl Words {
    pub(super) fn get(&self, row: usize) -> u64 {
        let stream = self.stream.as_ref().map_or(row as u64, |stream| stream.get(row));
        draw_word(self.seed.get(row), stream, self.position.get(row))
    }
}

/// Reads how many threads to use, if that was given. May run Python code.
#[inline]
pub(super) fn read_threads(num_threads: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let Some(given) = num_threads else { return Ok(None) };
    match <u64 as Number>::read(given) {
        Some(count) if count >= 1 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        _ => {
            let count = call_check(given.py(), "count", ("num_threads", given))?;
            Ok(Some(count.extract().unwrap_or(usize::MAX))) // an integer of at least 1
        }
    }
}

/// The k of the function `top_k`, before the number of tokens is known.
pub(super) struct TopK<'a, 'py> {
    given: &'a Bound<'py, PyAny>,
    k: Option<usize>,
}

impl<'a, 'py> TopK<'a, 'py> {
    /// Reads the argument. May run Python code.
    pub(super) fn read(given: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let k = match <u64 as Number>::read(given) {
            Some(k) => usize::try_from(k).ok(),
            None => call_check(given.py(), "integer", ("k", given))?.extract().ok(),
        };
        Ok(TopK { given, k })
    }

    /// The k, if it is in [1, most].
    pub(super) fn up_to(self, most: usize) -> PyResult<usize> {
        match self.k {
            Some(k) if (1..=most).contains(&k) => Ok(k),
            _ => call_check(self.given.py(), "count", ("k", self.given, most))?.extract(),
        }
    }
}

/// Reads what to do with a row that has no answer: true to mark it, false to raise an error.
#[inline]
pub(super) fn read_errors(errors: &Bound<'_, PyAny>) -> PyResult<bool> {
    match errors.cast::<PyString>().ok().and_then(|errors| errors.to_str().ok()) {
        Some("raise") => Ok(false),
        Some("mark") => Ok(true),
        _ => {
            call_check(errors.py(), "errors_mode", (errors,))?;
            Err(value_error("errors must be 'raise' or 'mark'"))
        }
    }
}
