//! The Python bindings: arrays and parameters in, tokens and errors out. No computation.
//!
//! Arrays that the kernels can read as they are need no Python code; whatever else logits may be, `_arrays.py` makes such an
//! array of it, with bfloat16 as its bits in uint16. The GIL is released while rows are worked on, unless they are few.

use std::slice;

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use numpy::ndarray::ArrayViewD;
use numpy::{
    Element, PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyInt, PyString};

use crate::batch;
use crate::error::RowError;
use crate::isa::Isa;
use crate::kernels::mass::MAX_TOKENS;
use crate::logit::Logit;
use crate::params::Params;
use crate::recipe::{self, Scratch};
use crate::rng::draw_word;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{argmax, available_isas, candidates, isa, log_softmax, mask_logits, sample, softmax, top_k};
    #[pymodule_export]
    use crate::dlpack::bfloat16_as_bits;
}

// ---- errors ---------------------------------------------------------------------------------------------------------

fn value_error(message: impl ToString) -> PyErr {
    PyValueError::new_err(message.to_string())
}

fn current_isa() -> PyResult<Isa> {
    Isa::current().map_err(value_error)
}

/// One error for the rows that have none of a batch's answers; without `rows` there is only one row, which has no number.
fn row_errors(errors: &[(usize, RowError)], is_batch: bool) -> PyErr {
    const SHOWN: usize = 8;
    let all_empty = errors.iter().all(|(_, error)| *error == RowError::Empty);
    let rule = if all_empty { "have a finite value" } else { "be finite or -inf" };
    let mut found: Vec<String> = errors
        .iter()
        .take(SHOWN)
        .map(|(row, error)| match error {
            _ if !is_batch => error.to_string(),
            RowError::NotFinite { id, .. } => {
                format!("{} at row {row}, id {id}", error.to_string().split(' ').next().unwrap_or(""))
            }
            RowError::Empty => format!("{error} in row {row}"),
        })
        .collect();
    if errors.len() > SHOWN {
        found.push(format!("and {} more rows", errors.len() - SHOWN));
    }
    value_error(format!("logits must {rule}, got {}", found.join("; ")))
}

/// The values, if every row of a batch has one.
fn all_rows<R>(results: Vec<Result<R, RowError>>) -> PyResult<Vec<R>> {
    let errors: Vec<_> = results.iter().enumerate().filter_map(|(row, r)| Some((row, *r.as_ref().err()?))).collect();
    if errors.is_empty() { Ok(results.into_iter().flatten().collect()) } else { Err(row_errors(&errors, true)) }
}

// ---- logits ---------------------------------------------------------------------------------------------------------

/// A type of logit as its numpy arrays hold it.
trait ArrayElement: Logit {
    type Stored: Element + Copy;
    fn slice(stored: &[Self::Stored]) -> &[Self];
    fn slice_mut(stored: &mut [Self::Stored]) -> &mut [Self];
}

impl ArrayElement for f32 {
    type Stored = f32;
    fn slice(stored: &[f32]) -> &[f32] {
        stored
    }
    fn slice_mut(stored: &mut [f32]) -> &mut [f32] {
        stored
    }
}

impl ArrayElement for f16 {
    type Stored = f16;
    fn slice(stored: &[f16]) -> &[f16] {
        stored
    }
    fn slice_mut(stored: &mut [f16]) -> &mut [f16] {
        stored
    }
}

impl ArrayElement for bf16 {
    type Stored = u16;
    fn slice(stored: &[u16]) -> &[bf16] {
        stored.reinterpret_cast()
    }
    fn slice_mut(stored: &mut [u16]) -> &mut [bf16] {
        stored.reinterpret_cast_mut()
    }
}

/// So few logits are copied and worked on under the GIL, for some microseconds: to register a borrow and to give up the GIL
/// would take longer.
const FEW: usize = 1024;

/// Logits that stay as they are while they are read.
struct Logits<'py, T: ArrayElement> {
    array: Bound<'py, PyArrayDyn<T::Stored>>,
    held: Held<'py, T>,
}

enum Held<'py, T: ArrayElement> {
    /// A few, row by row. If another thread writes to the array meanwhile, each of them is an old or a new one.
    Copied(Vec<T::Stored>),
    /// The functions of this file, and all who use rust-numpy's borrow checks, cannot write to the array meanwhile. Other code
    /// can, in another thread, and must not.
    Borrowed(PyReadonlyArrayDyn<'py, T::Stored>),
}

impl<'py, T: ArrayElement> Logits<'py, T> {
    fn new(array: &Bound<'py, PyArrayDyn<T::Stored>>) -> PyResult<Self> {
        let copied = if array.len() <= FEW && array.is_c_contiguous() { array.to_vec().ok() } else { None };
        let held = match copied {
            Some(values) => Held::Copied(values),
            None => Held::Borrowed(array.try_readonly().map_err(value_error)?),
        };
        Ok(Logits { array: array.clone(), held })
    }
}

/// Logits of any type.
enum AnyLogits<'py> {
    F32(Logits<'py, f32>),
    F16(Logits<'py, f16>),
    Bf16(Logits<'py, bf16>),
}

impl<'py> AnyLogits<'py> {
    fn new(logits: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Some(array) = as_it_is::<f32>(logits) {
            return Ok(AnyLogits::F32(Logits::new(array)?));
        }
        if let Some(array) = as_it_is::<f16>(logits) {
            return Ok(AnyLogits::F16(Logits::new(array)?));
        }
        static AS_NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (array, _source): (Bound<'py, PyAny>, Bound<'py, PyAny>) =
            AS_NATIVE.import(logits.py(), "toksample._arrays", "as_native")?.call1((logits,))?.extract()?;
        if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
            Ok(AnyLogits::F32(Logits::new(array)?))
        } else if let Ok(array) = array.cast::<PyArrayDyn<f16>>() {
            Ok(AnyLogits::F16(Logits::new(array)?))
        } else {
            Ok(AnyLogits::Bf16(Logits::new(array.cast::<PyArrayDyn<u16>>()?)?))
        }
    }
}

/// The numpy array, if the kernels can read it as it is. `as_native` would give the same one, or one of the same memory.
fn as_it_is<'a, 'py, P: Element>(logits: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyArrayDyn<P>>> {
    let array = logits.cast::<PyArrayDyn<P>>().ok()?;
    let readable = matches!(array.ndim(), 1 | 2) && array.is_c_contiguous() && array.data().is_aligned();
    // A subclass may mean more than its values: a masked array does.
    (readable && logits.is_exact_instance_of::<PyUntypedArray>()).then_some(array)
}

/// Runs `$body` with `$logits` as the logits of the type that they have, which `$t` names.
macro_rules! with_logits {
    ($any:ident, |$logits:ident: $t:ident| $body:expr) => {
        match $any {
            AnyLogits::F32($logits) => {
                type $t = f32;
                $body
            }
            AnyLogits::F16($logits) => {
                type $t = f16;
                $body
            }
            AnyLogits::Bf16($logits) => {
                type $t = bf16;
                $body
            }
        }
    };
}

/// One value, for the only row or for all of them, or one for each row of a batch.
enum PerRow<P> {
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

/// The rows of logits: one, or those of a batch.
struct Rows<'a, T> {
    rows: PerRow<&'a [T]>,
    tokens: usize,
}

impl<'a, T: ArrayElement> Rows<'a, T> {
    fn new(logits: &'a Logits<'_, T>) -> PyResult<Self> {
        let shape = logits.array.shape();
        let (is_batch, tokens) = match *shape {
            [tokens] => (false, tokens),
            [_, tokens] => (true, tokens),
            _ => {
                return Err(value_error(format!("logits must be of shape (V,) or (B, V), got {}", shape_text(shape))));
            }
        };
        if tokens == 0 || tokens > MAX_TOKENS {
            return Err(value_error(format!(
                "logits must have 1 to {MAX_TOKENS} tokens a row, got shape {}",
                shape_text(shape)
            )));
        }
        let rows = match &logits.held {
            Held::Copied(values) if is_batch => Some(PerRow::Many(values.chunks_exact(tokens).map(T::slice).collect())),
            Held::Copied(row) => Some(PerRow::One(T::slice(row))),
            Held::Borrowed(array) if is_batch => {
                array.as_array().into_outer_iter().map(Self::row).collect::<Option<_>>().map(PerRow::Many)
            }
            Held::Borrowed(array) => Self::row(array.as_array()).map(PerRow::One),
        };
        let rows = rows.ok_or_else(|| value_error("logits must be contiguous along the last axis"))?;
        Ok(Rows { rows, tokens })
    }

    /// None if it is not contiguous.
    fn row(row: ArrayViewD<'a, T::Stored>) -> Option<&'a [T]> {
        row.to_slice().map(T::slice)
    }

    fn only_row(&self) -> PyResult<&'a [T]> {
        match &self.rows {
            PerRow::One(row) => Ok(row),
            PerRow::Many(rows) => {
                let shape = shape_text(&[rows.len(), self.tokens]);
                Err(value_error(format!("logits must be one row of shape (V,), got shape {shape}")))
            }
        }
    }

    fn is_batch(&self) -> bool {
        matches!(self.rows, PerRow::Many(_))
    }

    fn count(&self) -> usize {
        match &self.rows {
            PerRow::One(_) => 1,
            PerRow::Many(rows) => rows.len(),
        }
    }

    /// Runs `run` on each row and what `each` has for it, on at most as many threads as `wanted`.
    fn map<E: Send, R: Send>(
        &self,
        py: Python<'_>,
        wanted: Option<usize>,
        mut each: impl ExactSizeIterator<Item = E> + Send,
        run: impl Fn(&'a [T], E, &mut Scratch) -> Result<R, RowError> + Send + Sync,
    ) -> PyResult<PerRow<R>> {
        match &self.rows {
            PerRow::One(row) => {
                let one = each.next().expect("there is one for each row");
                let result = without_gil(py, row.len(), || batch::with_scratch(|scratch| run(row, one, scratch)));
                result.map(PerRow::One).map_err(|error| row_errors(&[(0, error)], false))
            }
            PerRow::Many(rows) => {
                let threads = batch::threads(wanted, rows.len(), self.tokens);
                let jobs = rows.iter().copied().zip(each);
                let results = without_gil(py, rows.len() * self.tokens, || {
                    batch::map(jobs, threads, |(row, each), scratch| run(row, each, scratch))
                });
                all_rows(results).map(PerRow::Many)
            }
        }
    }
}

/// Runs `work`, without the GIL if it is on more than a few logits.
fn without_gil<R: Send>(py: Python<'_>, logits: usize, work: impl FnOnce() -> R + Send) -> R {
    if logits <= FEW { work() } else { py.detach(work) }
}

/// A shape as Python writes it.
fn shape_text(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

// ---- parameters -----------------------------------------------------------------------------------------------------

/// A number that a parameter may be.
trait Number: Copy + Element + for<'a, 'py> FromPyObject<'a, 'py> {
    const WHAT: &'static str;
    /// True for Python's own types. Anything else is asked for its length first, which for a number ends in an exception.
    fn is_one(value: &Bound<'_, PyAny>) -> bool;
    /// The error for a value that is a number but not in the type's range.
    fn out_of_range(name: &str, value: &Bound<'_, PyAny>) -> Option<PyErr>;
}

impl Number for f64 {
    const WHAT: &'static str = "a number";
    fn is_one(value: &Bound<'_, PyAny>) -> bool {
        value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>()
    }
    fn out_of_range(_: &str, _: &Bound<'_, PyAny>) -> Option<PyErr> {
        None
    }
}

impl Number for u64 {
    const WHAT: &'static str = "an integer";
    fn is_one(value: &Bound<'_, PyAny>) -> bool {
        value.is_instance_of::<PyInt>()
    }
    fn out_of_range(name: &str, value: &Bound<'_, PyAny>) -> Option<PyErr> {
        let index = value.call_method0("__index__").ok()?;
        let is_negative = index.lt(0).ok()?;
        let rule = match name {
            "top_k" if is_negative => ">= 0",
            "num_threads" if is_negative => ">= 1",
            _ => "in [0, 2**64)",
        };
        Some(value_error(format!("{name} must be {rule}, got {index}")))
    }
}

impl<P: Number> PerRow<P> {
    /// From a number, or a sequence or array with one for each row of a batch.
    #[inline]
    fn extract(name: &str, value: &Bound<'_, PyAny>, rows: usize, is_batch: bool) -> PyResult<Self> {
        if P::is_one(value)
            && let Ok(value) = value.extract::<P>()
        {
            return Ok(PerRow::One(value));
        }
        Self::extract_other(name, value, rows, is_batch)
    }

    /// From what is not one of Python's own numbers, or is out of the type's range.
    #[cold]
    fn extract_other(name: &str, value: &Bound<'_, PyAny>, rows: usize, is_batch: bool) -> PyResult<Self> {
        let wrong_type = || {
            let or_many = if is_batch { " or one for each row" } else { "" };
            let shown = value.repr().map_or_else(|_| "something without a repr".into(), |r| r.to_string());
            PyTypeError::new_err(format!("{name} must be {}{or_many}, got {shown}", P::WHAT))
        };
        let one = |value: &Bound<'_, PyAny>| {
            value.extract::<P>().map_err(|_| P::out_of_range(name, value).unwrap_or_else(wrong_type))
        };
        // Numbers have no length; nor have numpy's scalars, and arrays without an axis.
        let Ok(count) = value.len() else {
            return Ok(PerRow::One(one(value)?));
        };
        if !is_batch || value.is_instance_of::<PyString>() {
            return Err(wrong_type());
        }
        if count != rows {
            return Err(value_error(format!("{name} must have one value for each of the {rows} rows, got {count}")));
        }
        if let Ok(array) = value.extract::<PyReadonlyArray1<'_, P>>() {
            return Ok(PerRow::Many(array.as_array().to_vec()));
        }
        let items = value.try_iter()?.enumerate().map(|(row, item)| {
            let item = item?;
            item.extract::<P>().map_err(|_| match P::out_of_range(name, &item) {
                Some(error) => value_error(format!("{} (row {row})", error.value(item.py()))),
                None => wrong_type(),
            })
        });
        Ok(PerRow::Many(items.collect::<PyResult<_>>()?))
    }
}

/// The filters' parameters of every row, each in its range.
struct Filters(PerRow<Params>);

impl Filters {
    fn extract(
        [temperature, top_k, top_p, min_p]: [&Bound<'_, PyAny>; 4],
        rows: usize,
        is_batch: bool,
    ) -> PyResult<Self> {
        let temperature = PerRow::extract("temperature", temperature, rows, is_batch)?;
        let top_k = PerRow::extract("top_k", top_k, rows, is_batch)?;
        let top_p = PerRow::extract("top_p", top_p, rows, is_batch)?;
        let min_p = PerRow::extract("min_p", min_p, rows, is_batch)?;
        if let (PerRow::One(temperature), PerRow::One(top_k), PerRow::One(top_p), PerRow::One(min_p)) =
            (&temperature, &top_k, &top_p, &min_p)
        {
            let params = Params { temperature: *temperature, top_k: *top_k, top_p: *top_p, min_p: *min_p };
            params.validate().map_err(value_error)?;
            return Ok(Filters(PerRow::One(params)));
        }
        let each = (0..rows).map(|row| {
            let params = Params {
                temperature: temperature.get(row),
                top_k: top_k.get(row),
                top_p: top_p.get(row),
                min_p: min_p.get(row),
            };
            params.validate().map_err(|error| value_error(format!("{error} (row {row})")))?;
            Ok(params)
        });
        Ok(Filters(PerRow::Many(each.collect::<PyResult<_>>()?)))
    }

    fn get(&self, row: usize) -> Params {
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

/// Which random word each row draws with.
struct Words {
    seed: PerRow<u64>,
    stream: Option<PerRow<u64>>,
    position: PerRow<u64>,
}

impl Words {
    fn extract(
        seed: Option<&Bound<'_, PyAny>>,
        stream: Option<&Bound<'_, PyAny>>,
        position: &Bound<'_, PyAny>,
        filters: &Filters,
        rows: usize,
        is_batch: bool,
    ) -> PyResult<Self> {
        Ok(Words {
            seed: match seed {
                Some(seed) => PerRow::extract("seed", seed, rows, is_batch)?,
                // To ask for entropy takes longer than a short greedy row.
                None if !filters.need_words() => PerRow::One(0),
                None => PerRow::One(getrandom::u64().map_err(|e| PyOSError::new_err(e.to_string()))?),
            },
            stream: stream.map(|stream| PerRow::extract("stream", stream, rows, is_batch)).transpose()?,
            position: PerRow::extract("position", position, rows, is_batch)?,
        })
    }

    fn get(&self, row: usize) -> u64 {
        let stream = self.stream.as_ref().map_or(row as u64, |stream| stream.get(row));
        draw_word(self.seed.get(row), stream, self.position.get(row))
    }
}

fn extract_temperature(value: &Bound<'_, PyAny>, rows: usize, is_batch: bool) -> PyResult<Filters> {
    let py = value.py();
    let (zero, one) = (0u64.into_pyobject(py)?.into_any(), 1f64.into_pyobject(py)?.into_any());
    Filters::extract([value, &zero, &one, &zero], rows, is_batch)
}

fn extract_threads(num_threads: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let Some(value) = num_threads else {
        return Ok(None);
    };
    match PerRow::<u64>::extract("num_threads", value, 1, false)? {
        PerRow::One(0) => Err(value_error("num_threads must be >= 1, got 0")),
        PerRow::One(n) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
        PerRow::Many(_) => unreachable!("one row has one value"),
    }
}

/// The k of `top_k`, in [1, most].
fn extract_count(k: &Bound<'_, PyAny>, most: usize) -> PyResult<usize> {
    let Ok(index) = k.call_method0("__index__") else {
        return Err(PyTypeError::new_err(format!("k must be an integer, got {}", k.repr()?)));
    };
    match index.extract::<usize>() {
        Ok(k) if 1 <= k && k <= most => Ok(k),
        _ => Err(value_error(format!("k must be in [1, {most}], got {index}"))),
    }
}

/// `out` as an array of `P` with this shape, contiguous and writable.
fn extract_out<'py, P: Element>(
    out: &Bound<'py, PyAny>,
    dtype: &str,
    shape: &[usize],
    logits: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArrayDyn<P>>> {
    let rule = || format!("out must be a writable C-contiguous {dtype} array of shape {}", shape_text(shape));
    let Ok(array) = out.cast::<PyUntypedArray>() else {
        return Err(PyTypeError::new_err(format!("{}, got {}", rule(), out.get_type().name()?)));
    };
    let got = || format!("{}, got {} of shape {}", rule(), array.dtype(), shape_text(array.shape()));
    let Ok(typed) = out.cast::<PyArrayDyn<P>>() else {
        return Err(PyTypeError::new_err(got()));
    };
    if typed.shape() != shape {
        return Err(value_error(got()));
    }
    if !typed.is_c_contiguous() {
        return Err(value_error(format!("{}, got one that is not contiguous", rule())));
    }
    let flags = typed.getattr("flags")?;
    if !flags.getattr("aligned")?.extract::<bool>()? {
        return Err(value_error(format!("{}, got one that is not aligned", rule())));
    }
    if !flags.getattr("writeable")?.extract::<bool>()? {
        return Err(value_error(format!("{}, got one that is read-only", rule())));
    }
    // By their bounds, which is exact for rows and `out` that are each in one piece; numpy's borrow checks would not see two
    // arrays that were made of one foreign buffer.
    let may_share = out.py().import("numpy")?.getattr("may_share_memory")?;
    if may_share.call1((logits, out))?.extract::<bool>()? {
        return Err(value_error("out must not share memory with logits, got one that does"));
    }
    Ok(typed.clone())
}

// ---- functions ------------------------------------------------------------------------------------------------------

/// The name of the instruction set in use.
#[pyfunction]
fn isa() -> PyResult<&'static str> {
    Ok(current_isa()?.name())
}

/// The names of the instruction sets that this CPU has, the best one last.
#[pyfunction]
fn available_isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Token ids as the caller gets them: an int for one row, an int64 array for a batch, or `out`.
fn tokens_to_python<'py>(
    py: Python<'py>,
    tokens: PerRow<i64>,
    out: Option<Bound<'py, PyArrayDyn<i64>>>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(out) = out {
        let tokens = match &tokens {
            PerRow::One(token) => slice::from_ref(token),
            PerRow::Many(tokens) => tokens,
        };
        out.try_readwrite().map_err(value_error)?.as_slice_mut().map_err(value_error)?.copy_from_slice(tokens);
        return Ok(out.into_any());
    }
    match tokens {
        PerRow::One(token) => Ok(token.into_pyobject(py)?.into_any()),
        PerRow::Many(tokens) => Ok(PyArray1::from_vec(py, tokens).into_any()),
    }
}

#[pyfunction]
fn argmax<'py>(logits: &Bound<'py, PyAny>, num_threads: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let (py, logits) = (logits.py(), AnyLogits::new(logits)?);
    let (isa, wanted) = (current_isa()?, extract_threads(num_threads)?);
    with_logits!(logits, |logits: T| {
        let rows = Rows::<T>::new(&logits)?;
        let tokens = rows.map(py, wanted, 0..rows.count(), |row, _, scratch| {
            recipe::argmax(isa, row, scratch).map(|id| id as i64)
        })?;
        tokens_to_python(py, tokens, None)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn sample<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    top_k: &Bound<'py, PyAny>,
    top_p: &Bound<'py, PyAny>,
    min_p: &Bound<'py, PyAny>,
    seed: Option<&Bound<'py, PyAny>>,
    position: &Bound<'py, PyAny>,
    stream: Option<&Bound<'py, PyAny>>,
    errors: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, logits) = (logits.py(), AnyLogits::new(logits)?);
    let (isa, wanted) = (current_isa()?, extract_threads(num_threads)?);
    let mark = match errors.cast::<PyString>().ok().and_then(|errors| errors.to_str().ok()) {
        Some("raise") => false,
        Some("mark") => true,
        _ => return Err(value_error(format!("errors must be 'raise' or 'mark', got {}", errors.repr()?))),
    };
    with_logits!(logits, |logits: T| {
        let rows = Rows::<T>::new(&logits)?;
        let (count, is_batch) = (rows.count(), rows.is_batch());
        let filters = Filters::extract([temperature, top_k, top_p, min_p], count, is_batch)?;
        let words = Words::extract(seed, stream, position, &filters, count, is_batch)?;
        let shape = if is_batch { &[count][..] } else { &[] };
        let out = out.map(|out| extract_out(out, "int64", shape, &logits.array)).transpose()?;
        let tokens = rows.map(py, wanted, 0..count, |row, b, scratch| {
            match recipe::sample(isa, row, &filters.get(b), words.get(b), scratch) {
                Err(_) if mark => Ok(-1),
                token => token.map(|id| id as i64),
            }
        })?;
        tokens_to_python(py, tokens, out)
    })
}

#[pyfunction]
fn candidates<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    top_k: &Bound<'py, PyAny>,
    top_p: &Bound<'py, PyAny>,
    min_p: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (py, logits, isa) = (logits.py(), AnyLogits::new(logits)?, current_isa()?);
    with_logits!(logits, |logits: T| {
        let row = Rows::<T>::new(&logits)?.only_row()?;
        let params = Filters::extract([temperature, top_k, top_p, min_p], 1, false)?.get(0);
        let result = without_gil(py, row.len(), || {
            batch::with_scratch(|scratch| recipe::candidates(isa, row, &params, scratch))
        });
        let (ids, probs) = result.map_err(|error| row_errors(&[(0, error)], false))?;
        Ok((PyArray1::from_vec(py, ids).into_any(), PyArray1::from_vec(py, probs).into_any()))
    })
}

#[pyfunction]
fn mask_logits<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    top_k: &Bound<'py, PyAny>,
    top_p: &Bound<'py, PyAny>,
    min_p: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, logits) = (logits.py(), AnyLogits::new(logits)?);
    let (isa, wanted) = (current_isa()?, extract_threads(num_threads)?);
    with_logits!(logits, |logits: T| {
        let shape = logits.array.shape().to_vec();
        let rows = Rows::<T>::new(&logits)?;
        let filters = Filters::extract([temperature, top_k, top_p, min_p], rows.count(), rows.is_batch())?;
        let out = PyArrayDyn::<<T as ArrayElement>::Stored>::zeros(py, shape, false);
        let mut writing = out.readwrite();
        let masked = T::slice_mut(writing.as_slice_mut().map_err(value_error)?);
        rows.map(py, wanted, masked.chunks_mut(rows.tokens).enumerate(), |row, (b, out), scratch| {
            recipe::mask_logits(isa, row, &filters.get(b), out, scratch)
        })?;
        drop(writing);
        Ok(out.into_any())
    })
}

#[pyfunction]
fn softmax<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, temperature, out, num_threads, false)
}

#[pyfunction]
fn log_softmax<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, temperature, out, num_threads, true)
}

fn probabilities<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
    log: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, logits) = (logits.py(), AnyLogits::new(logits)?);
    let (isa, wanted) = (current_isa()?, extract_threads(num_threads)?);
    with_logits!(logits, |logits: T| {
        let shape = logits.array.shape().to_vec();
        let rows = Rows::<T>::new(&logits)?;
        let is_batch = rows.is_batch();
        let temperature = extract_temperature(temperature, rows.count(), is_batch)?;
        if out.is_some() && is_batch {
            // A bad row must leave the caller's array as it is, so all rows are looked at before the first is written.
            rows.map(py, wanted, 0..rows.count(), |row, _, scratch| recipe::argmax(isa, row, scratch))?;
        }
        let out = match out {
            Some(out) => extract_out::<f32>(out, "float32", &shape, &logits.array)?,
            None => PyArrayDyn::<f32>::zeros(py, shape, false),
        };
        let mut writing = out.try_readwrite().map_err(value_error)?;
        let written = writing.as_slice_mut().map_err(value_error)?;
        rows.map(py, wanted, written.chunks_mut(rows.tokens).enumerate(), |row, (b, out), scratch| match log {
            false => recipe::softmax(isa, row, temperature.get(b).temperature, out, scratch),
            true => recipe::log_softmax(isa, row, temperature.get(b).temperature, out, scratch),
        })?;
        drop(writing);
        Ok(out.into_any())
    })
}

#[pyfunction]
fn top_k<'py>(
    logits: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (py, logits) = (logits.py(), AnyLogits::new(logits)?);
    let (isa, wanted) = (current_isa()?, extract_threads(num_threads)?);
    with_logits!(logits, |logits: T| {
        let rows = Rows::<T>::new(&logits)?;
        let (is_batch, count) = (rows.is_batch(), rows.count());
        let k = extract_count(k, rows.tokens)?;
        let values = PyArray2::<<T as ArrayElement>::Stored>::zeros(py, [count, k], false);
        let ids = PyArray2::<i64>::zeros(py, [count, k], false);
        let (mut writing_values, mut writing_ids) = (values.readwrite(), ids.readwrite());
        let written_values = T::slice_mut(writing_values.as_slice_mut().map_err(value_error)?).chunks_mut(k);
        let written_ids = writing_ids.as_slice_mut().map_err(value_error)?.chunks_mut(k);
        rows.map(py, wanted, written_values.zip(written_ids), |row, (values, ids), scratch| {
            recipe::top_k(isa, row, values, ids, scratch)
        })?;
        drop((writing_values, writing_ids));
        if is_batch {
            Ok((values.into_any(), ids.into_any()))
        } else {
            Ok((values.reshape([k])?.into_any(), ids.reshape([k])?.into_any()))
        }
    })
}
