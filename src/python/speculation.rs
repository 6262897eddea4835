//! The functions that verify a draft: by rejection, and by a race.

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{ArrayElement, Logits, Rows, slice_of_new, with_element, zeros};
use super::errors::{guarded, value_error};
use super::functions::{current_isa, for_each_row, pin, tokens};
use super::inputs::Contexts;
use super::parameters::{Parameters, read_threads};
use crate::race::race;
use crate::recipe::{Odds, Scratch};
use crate::speculation::{Source, next, next_after};

/// Returns, for each place of a draft, the draft token if it is accepted, and otherwise the token that comes instead. The last
/// place is the one after the draft. -1 stands for a draft token that the draft's own parameters do not keep.
#[pyfunction]
pub(super) fn verify<'py>(
    target_logits: &Bound<'py, PyAny>,
    target_parameters: &Bound<'py, PyDict>,
    draft_tokens: &Bound<'py, PyArray1<i64>>,
    draft_logits: &Bound<'py, PyAny>,
    draft_parameters: &Bound<'py, PyDict>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (target_logits.py(), current_isa()?, read_threads(num_threads)?);
        let drafted: Vec<usize> = draft_tokens.to_vec().map_err(value_error)?.iter().map(|&id| id as usize).collect();
        let target_parameters = Parameters::read(target_parameters)?;
        let draft_parameters = Parameters::read(draft_parameters)?;
        let (target, target_inputs) = target_parameters.read_logits(target_logits)?;
        let (draft, draft_inputs) = draft_parameters.read_logits(draft_logits).map_err(|error| of_draft(py, error))?;
        check_shapes(&target, &draft, &drafted)?;
        target_parameters.check(py, target.shape)?;
        draft_parameters.check(py, draft.shape)?;
        let mut tokens = zeros::<i64>(py, &[target.shape.rows])?;
        with_element!(target, |T| with_element!(draft, |D| {
            let _pins = (pin(&target)?, target_inputs.pin()?, pin(&draft)?, draft_inputs.pin()?);
            let target_rows = Sources::<T>::new(target.rows::<T>()?, &target_parameters, target_inputs.contexts()?);
            let draft_rows = Sources::<D>::new(draft.rows::<D>()?, &draft_parameters, draft_inputs.contexts()?);
            let mut parts = vec![Odds::default(); drafted.len()];
            for_each_row::<D, _>(py, draft.shape, draft_rows.rows, wanted, parts.iter_mut(), |_, b, part, scratch| {
                *part = draft_rows.get(b).part(isa, drafted[b], scratch)?;
                Ok(())
            })
            .map_err(|error| of_draft(py, error))?;
            let written = slice_of_new(&mut tokens).iter_mut();
            for_each_row::<T, _>(py, target.shape, target_rows.rows, wanted, written, |_, b, token, scratch| {
                *token = match parts.get(b) {
                    None => next_after(isa, &target_rows.get(b), scratch)? as i64,
                    Some(Odds { mass: 0, .. }) => -1,
                    Some(&part) => {
                        next(isa, &target_rows.get(b), &draft_rows.get(b), drafted[b], part, scratch)? as i64
                    }
                };
                Ok(())
            })
        }))?;
        Ok(tokens.into_any())
    })
}

/// Returns the token that wins the race in each row. Seeds, streams and positions are given.
#[pyfunction]
pub(super) fn draw_by_race<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let parameters = Parameters::read(parameters)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        parameters.check(py, logits.shape)?;
        with_element!(logits, |T| {
            let run = |row: &[T], b, contexts: &Contexts<'_>, scratch: &mut Scratch| {
                race(isa, &source(row, b, &parameters, contexts), parameters.place(b, 0, 0), scratch)
            };
            tokens::<T>(py, &logits, &inputs, wanted, None, run, false)
        })
    })
}

/// Returns an error unless the logits and the tokens of the draft still fit together. `_speculation.py` has checked them, but
/// another thread may have changed them since.
fn check_shapes(target: &Logits<'_>, draft: &Logits<'_>, drafted: &[usize]) -> PyResult<()> {
    let (target, draft) = (target.shape, draft.shape);
    let fits = target.is_batch
        && draft.is_batch
        && (target.rows, draft.rows) == (drafted.len() + 1, drafted.len())
        && target.tokens == draft.tokens
        && drafted.iter().all(|&id| id < target.tokens);
    if fits {
        Ok(())
    } else {
        Err(value_error("logits must keep their shape during the call, got an array that changed"))
    }
}

/// Gives an error about the logits of the draft their name.
fn of_draft(py: Python<'_>, error: PyErr) -> PyErr {
    let text = error.value(py).to_string();
    match error.is_instance_of::<PyValueError>(py) && text.starts_with("logits ") {
        true => value_error(format!("draft_{text}")),
        false => error,
    }
}

/// What the tokens of each row are drawn from.
struct Sources<'a, T: ArrayElement> {
    rows: Rows<'a, T::Stored>,
    parameters: &'a Parameters,
    contexts: Contexts<'a>,
}

impl<'a, T: ArrayElement> Sources<'a, T> {
    fn new(rows: Rows<'a, T::Stored>, parameters: &'a Parameters, contexts: Contexts<'a>) -> Self {
        Sources { rows, parameters, contexts }
    }

    fn get(&self, row: usize) -> Source<'a, T> {
        source(T::slice(self.rows.row(row)), row, self.parameters, &self.contexts)
    }
}

/// What the token of one row is drawn from. Its seed and its position are given.
fn source<'a, T>(row: &'a [T], b: usize, parameters: &Parameters, contexts: &Contexts<'a>) -> Source<'a, T> {
    Source { row, params: *parameters.get(b), context: contexts.get(b), words: parameters.words(b, 0, 0) }
}
