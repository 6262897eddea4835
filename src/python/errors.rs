//! The Python exceptions that the bindings raise.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::error::RowError;

pub(super) fn value_error(message: impl ToString) -> PyErr {
    PyValueError::new_err(message.to_string())
}

/// Runs the body of a function. A panic is a bug in toksample. It becomes a RuntimeError that asks for a report, because no
/// `except Exception` would catch pyo3's own PanicException.
#[inline]
pub(super) fn guarded<R>(body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(bug(&*panic)))
}

#[cold]
fn bug(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    PyRuntimeError::new_err(format!(
        "toksample has a bug; please report it, with the call, at {}/issues: {}",
        env!("CARGO_PKG_REPOSITORY"),
        text.unwrap_or("a panic without a text")
    ))
}

/// The module `_parameters.py`, whose functions read unusual parameters and raise the errors for wrong ones.
static PARAMETERS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Calls a function of `_parameters.py`, which may raise an error.
#[cold]
pub(super) fn call_check<'py>(
    py: Python<'py>,
    function: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    parameters_module(py)?.getattr(function)?.call1(arguments.into_pyobject(py)?)
}

/// Returns the module, which is imported when it is first needed.
pub(super) fn parameters_module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    Ok(PARAMETERS.get_or_try_init(py, || py.import("toksample._parameters").map(Bound::unbind))?.bind(py))
}

/// Collects, from several threads, the rows of a batch that have no answer.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    count: usize,
    /// The rows with the lowest numbers, in order, up to [`SHOWN`] of them.
    first: Vec<(usize, RowError)>,
    are_all_empty: bool,
}

/// An error lists this many rows, and says how many more there are.
const SHOWN: usize = 8;

impl Failures {
    pub(super) fn add(&self, row: usize, error: RowError) {
        let mut found = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        found.are_all_empty = error == RowError::Empty && (found.count == 0 || found.are_all_empty);
        found.count += 1;
        let place = found.first.partition_point(|&(earlier, _)| earlier < row);
        found.first.insert(place, (row, error));
        found.first.truncate(SHOWN);
    }

    /// Returns one error for all rows that were added, if there are any.
    pub(super) fn raise(self) -> PyResult<()> {
        let found = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        if found.count == 0 {
            return Ok(());
        }
        if let Some((_, RowError::OutOfMemory)) = found.first.iter().find(|(_, e)| *e == RowError::OutOfMemory) {
            return Err(out_of_memory());
        }
        let changed = found.first.iter().any(|(_, error)| *error == RowError::Changed);
        let rule = match (changed, found.are_all_empty) {
            (true, _) => "not change during the call",
            (false, true) => "have a finite value",
            (false, false) => "be finite or -inf",
        };
        let mut texts: Vec<String> = found.first.iter().map(|(row, error)| in_batch(*row, error)).collect();
        if found.count > SHOWN {
            texts.push(format!("and {} more rows", found.count - SHOWN));
        }
        Err(value_error(format!("logits must {rule}, got {}", texts.join("; "))))
    }
}

fn in_batch(row: usize, error: &RowError) -> String {
    match error {
        RowError::NotFinite { id, value } => {
            let what = if value.is_nan() { "nan" } else { "inf" };
            format!("{what} at row {row}, id {id}")
        }
        _ => format!("{error} in row {row}"),
    }
}

/// The error for logits that are a single row.
#[cold]
pub(super) fn row_error(error: RowError) -> PyErr {
    let rule = match error {
        RowError::OutOfMemory => return out_of_memory(),
        RowError::Changed => "not change during the call",
        RowError::Empty => "have a finite value",
        RowError::NotFinite { .. } => "be finite or -inf",
    };
    value_error(format!("logits must {rule}, got {error}"))
}

fn out_of_memory() -> PyErr {
    PyMemoryError::new_err("there is not enough memory to work on the logits")
}
