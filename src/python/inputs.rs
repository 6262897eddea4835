//! The inputs of a draw that are neither logits nor numbers: histories, biases, bitmasks and, from `rules.rs`, other rules.
//!
//! Inputs of exactly the expected type are read here. `_parameters.py` reads all others, and raises the errors.

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

use super::arrays::{Bitmask, Pin, Rows, Shape, with_values};
use super::errors::{call_check, value_error};
use super::rules::{Rules, plain_ids};
use crate::context::Context;

/// The names of the inputs, but for those of the rules.
pub(super) const INPUTS: [&str; 4] = ["logit_bias", "prompt_ids", "output_ids", "bitmask"];

/// The inputs of a call. Histories and biases are copied; the bitmask stays in the caller's memory.
#[derive(Default)]
pub(super) struct Inputs<'py> {
    biases: PerRow<(u32, f32)>,
    prompt_ids: PerRow<u32>,
    output_ids: PerRow<u32>,
    bitmask: Option<Bitmask<'py>>,
    rules: Option<Box<Rules>>,
}

/// A list of values for each row.
#[derive(Default)]
struct PerRow<P> {
    values: Vec<P>,
    /// Where the values of each row begin, followed by where the last row ends. If this describes one row, it is for all rows.
    offsets: Vec<usize>,
}

impl<P> PerRow<P> {
    /// The same values for all rows.
    fn of_all(values: Vec<P>) -> Self {
        PerRow { offsets: vec![0, values.len()], values }
    }

    fn get(&self, row: usize) -> &[P] {
        let first = if self.offsets.len() == 2 { 0 } else { row };
        match self.offsets.get(first..first + 2) {
            Some(&[begin, end]) => &self.values[begin..end],
            _ => &[],
        }
    }
}

impl<'py> Inputs<'py> {
    /// Reads the inputs from pairs of a name and a value. May run Python code.
    pub(super) fn read<'a>(
        given: impl Iterator<Item = &'a (&'static str, Py<PyAny>)>,
        py: Python<'py>,
        shape: Shape,
    ) -> PyResult<Self> {
        let mut inputs = Inputs::default();
        for (name, value) in given {
            let value = value.bind(py);
            match *name {
                "logit_bias" => inputs.biases = read_biases(value, shape)?,
                "prompt_ids" => inputs.prompt_ids = read_ids(name, value, shape)?,
                "output_ids" => inputs.output_ids = read_ids(name, value, shape)?,
                "bitmask" => inputs.bitmask = Some(read_bitmask(value, shape)?),
                name => inputs.rules.get_or_insert_default().set(name, value, shape)?,
            }
        }
        Ok(inputs)
    }

    /// Stops numpy from resizing the bitmask.
    pub(super) fn pin(&self) -> PyResult<Option<Pin<'py>>> {
        self.bitmask.as_ref().map(Bitmask::pin).transpose()
    }

    /// Returns the inputs in the form that the kernels take. No Python code may run from here until they are no longer used.
    pub(super) fn contexts(&self) -> PyResult<Contexts<'_>> {
        let Inputs { biases, prompt_ids, output_ids, bitmask, rules } = self;
        let bitmask = bitmask.as_ref().map(Bitmask::rows).transpose()?;
        Ok(Contexts { biases, prompt_ids, output_ids, bitmask, rules: rules.as_deref() })
    }
}

/// The context of each row.
#[derive(Clone, Copy)]
pub(super) struct Contexts<'a> {
    biases: &'a PerRow<(u32, f32)>,
    prompt_ids: &'a PerRow<u32>,
    output_ids: &'a PerRow<u32>,
    bitmask: Option<Rows<'a, u32>>,
    rules: Option<&'a Rules>,
}

impl<'a> Contexts<'a> {
    #[inline]
    pub(super) fn get(&self, row: usize) -> Context<'a> {
        Context {
            biases: self.biases.get(row),
            prompt_ids: self.prompt_ids.get(row),
            output_ids: self.output_ids.get(row),
            bitmask: self.bitmask.map(|rows| rows.row(row)),
            rules: self.rules.map(|rules| rules.get(row)),
        }
    }
}

fn read_ids(name: &str, given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<PerRow<u32>> {
    if !shape.is_batch
        && let Ok(array) = given.cast_exact::<PyArray1<i64>>()
        && let Some(ids) = with_values(array, |ids| in_row(ids, shape.tokens)).flatten()
    {
        return Ok(PerRow::of_all(ids));
    }
    if !shape.is_batch
        && let Some(ids) = plain_ids(given, shape.tokens)
    {
        return Ok(PerRow::of_all(ids));
    }
    let read = call_check(given.py(), "token_ids", (name, given, shape.rows, shape.is_batch, shape.tokens))?;
    let (ids, offsets): (Vec<i64>, Vec<usize>) = vectors(&read)?;
    per_row(name, in_row(&ids, shape.tokens), offsets, shape)
}

/// Converts the ids; None if any of them is not an id of the row.
fn in_row(ids: &[i64], tokens: usize) -> Option<Vec<u32>> {
    // The baseline of x86-64 compares 32 bits at a time, and these only if they have a sign.
    let bits = ids.iter().fold(0, |bits, &id| bits | id as u64);
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let largest = ids.iter().fold(0, |largest, &id| largest.max(id as i32));
    (bits >> 31 == 0 && (largest as usize) < tokens).then_some(ids)
}

fn read_biases(given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<PerRow<(u32, f32)>> {
    if let Ok(mapping) = given.cast_exact::<PyDict>()
        && let Some(biases) = plain_biases(mapping, shape.tokens)
    {
        return Ok(PerRow::of_all(biases));
    }
    let read = call_check(given.py(), "biases", (given, shape.rows, shape.is_batch, shape.tokens))?;
    let (ids, offsets): (Vec<i64>, Vec<usize>) = (array(&read.get_item(0)?)?, vector(&read.get_item(2)?)?);
    let values: Vec<f64> = array(&read.get_item(1)?)?;
    let ids = in_row(&ids, shape.tokens).filter(|ids| ids.len() == values.len());
    let pairs = ids.map(|ids| ids.into_iter().zip(values.into_iter().map(|bias| bias as f32)).collect());
    per_row("logit_bias", pairs, offsets, shape)
}

/// The largest bias that is allowed: a round number that float32 can still hold. `_parameters.py` has the same limit.
const LARGEST_BIAS: f64 = 3.4e38;

/// Reads a dictionary from integers to floats or integers; None if anything in it has another type or is out of range.
fn plain_biases(mapping: &Bound<'_, PyDict>, tokens: usize) -> Option<Vec<(u32, f32)>> {
    let mut biases = Vec::with_capacity(mapping.len());
    for (id, bias) in mapping {
        if !(id.is_exact_instance_of::<PyInt>()
            && (bias.is_exact_instance_of::<PyFloat>() || bias.is_exact_instance_of::<PyInt>()))
        {
            return None;
        }
        let id = id.extract::<u32>().ok().filter(|&id| (id as usize) < tokens)?;
        let bias = bias.extract::<f64>().ok()?;
        let is_bias = bias == f64::NEG_INFINITY || bias.abs() <= LARGEST_BIAS;
        biases.push((id, is_bias.then_some(bias as f32)?));
    }
    Some(biases)
}

fn read_bitmask<'py>(given: &Bound<'py, PyAny>, shape: Shape) -> PyResult<Bitmask<'py>> {
    if let Some(bitmask) = Bitmask::read(given, shape) {
        return Ok(bitmask);
    }
    let read = call_check(given.py(), "bitmask", (given, shape.rows, shape.is_batch, shape.tokens))?;
    Bitmask::read(&read, shape).ok_or_else(|| value_error("bitmask could not be converted"))
}

fn per_row<P>(name: &str, values: Option<Vec<P>>, offsets: Vec<usize>, shape: Shape) -> PyResult<PerRow<P>> {
    let is_right = |values: &Vec<P>| {
        offsets.is_sorted()
            && offsets.last() == Some(&values.len())
            && (offsets.len() == 2 || offsets.len() == shape.rows + 1)
    };
    let values = values.filter(is_right).ok_or_else(|| value_error(format!("{name} could not be converted")))?;
    Ok(PerRow { values, offsets })
}

fn vectors(read: &Bound<'_, PyAny>) -> PyResult<(Vec<i64>, Vec<usize>)> {
    Ok((array(&read.get_item(0)?)?, vector(&read.get_item(1)?)?))
}

fn vector(given: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let offsets: Vec<i64> = array(given)?;
    offsets.into_iter().map(|offset| usize::try_from(offset).map_err(value_error)).collect()
}

fn array<P: numpy::Element + Copy>(given: &Bound<'_, PyAny>) -> PyResult<Vec<P>> {
    given.cast::<PyArray1<P>>()?.to_vec().map_err(value_error)
}
