//! The functions of the module `_native`. Each one goes through the steps that `mod.rs` lists.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{self, ArrayElement, Logits, Out, Pin, Rows, Shape, slice_of_new, with_element, zeros};
use super::errors::{self, Failures, guarded, row_error, value_error};
use super::inputs::{Contexts, Inputs};
use super::parameters::{self, Parameters, Reals, TopK, read_threads};
use crate::batch::{self, Batch, with_scratch};
use crate::error::RowError;
use crate::isa::Isa;
use crate::params::Params;
use crate::recipe::{self, Scratch};

pub(super) fn current_isa() -> PyResult<Isa> {
    Isa::current().map_err(value_error)
}

/// Return the name of the instruction set in use.
///
/// It is the best one that this CPU has, unless the environment variable `TOKSAMPLE_ISA` chooses another one.
///
/// Returns
/// -------
/// str
///     "portable", "avx2" or "avx512".
///
/// Raises
/// ------
/// ValueError
///     If `TOKSAMPLE_ISA` names an instruction set that does not exist, or that this CPU lacks.
///
/// Examples
/// --------
/// >>> toksample.isa() in toksample.available_isas()
/// True
#[pyfunction]
pub(super) fn isa() -> PyResult<&'static str> {
    Ok(current_isa()?.name())
}

/// Return the names of the instruction sets that this CPU has, with the best one last.
///
/// Returns
/// -------
/// list of str
///
/// Examples
/// --------
/// >>> "portable" in toksample.available_isas()
/// True
#[pyfunction]
pub(super) fn available_isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Does everything that is done once a process. The package calls this at the end of its import; `mod.rs` says why.
#[pyfunction]
pub(super) fn look_up_once(py: Python<'_>) -> PyResult<()> {
    batch::cores();
    let _ = Isa::current(); // an error is reported by the first call that needs it
    let _ = threads_of_environment();
    errors::parameters_module(py)?;
    parameters::look_up_once(py);
    arrays::look_up_once(py)
}

/// Called by a thread that is about to fork.
#[pyfunction]
pub(super) fn before_fork(py: Python<'_>) {
    py.detach(|| batch::GATE.close()); // without the GIL, which the threads that this waits for may need
}

/// Called in the parent and in the child, after the fork.
#[pyfunction]
pub(super) fn after_fork(is_child: bool) {
    if is_child { batch::GATE.open_in_child() } else { batch::GATE.open() }
}

// ---- threads --------------------------------------------------------------------------------------------------------

/// The environment variable that limits the threads of every call.
const THREADS_VARIABLE: &str = "TOKSAMPLE_NUM_THREADS";

/// The limit that `set_num_threads` has set, or 0 if there is none.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The limit that the environment variable sets. The variable is read once a process.
fn threads_of_environment() -> Result<Option<usize>, String> {
    static LIMIT: OnceLock<Result<Option<usize>, String>> = OnceLock::new();
    let read = || match std::env::var_os(THREADS_VARIABLE) {
        None => Ok(None),
        Some(text) => match text.to_str().and_then(|text| text.parse::<usize>().ok()) {
            Some(count) if count >= 1 => Ok(Some(count)),
            _ => Err(format!("{THREADS_VARIABLE} must be an integer >= 1, got {text:?}")),
        },
    };
    LIMIT.get_or_init(read).clone()
}

/// The most threads that a call uses if it does not say how many.
fn threads_limit() -> PyResult<Option<usize>> {
    match THREADS.load(Ordering::Relaxed) {
        0 => threads_of_environment().map_err(value_error),
        count => Ok(Some(count)),
    }
}

/// The most threads that a call uses if it does not say how many; None if only the amount of work and the cores decide.
#[pyfunction]
pub(super) fn get_num_threads() -> PyResult<Option<usize>> {
    threads_limit()
}

/// Sets the most threads that a call uses if it does not say how many. With None, the environment variable decides again.
#[pyfunction]
pub(super) fn set_num_threads(num_threads: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    THREADS.store(read_threads(num_threads)?.unwrap_or(0), Ordering::Relaxed);
    Ok(())
}

// ---- the rows of a call ---------------------------------------------------------------------------------------------

/// Up to this many logits are worked on under the GIL. This takes a few microseconds, and releasing the GIL would cost more.
const FEW: usize = 1024;

/// How long a batch runs before Python gets a chance to handle signals.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(100);

/// Runs `work`, and releases the GIL for it if there are more than a few logits.
#[inline]
pub(super) fn without_gil<R: Send>(py: Python<'_>, logits: usize, work: impl FnOnce() -> R + Send) -> R {
    if logits <= FEW { work() } else { py.detach(work) }
}

/// Runs `run` on each row, together with the item of `writes` that the row's result is written to. If `run` fails for some
/// rows, returns an error that names them.
pub(super) fn for_each_row<'a, T: ArrayElement, W: Send>(
    py: Python<'_>,
    shape: Shape,
    rows: Rows<'a, T::Stored>,
    wanted: Option<usize>,
    writes: impl ExactSizeIterator<Item = W> + Send,
    run: impl Fn(&'a [T], usize, W, &mut Scratch) -> Result<(), RowError> + Send + Sync,
) -> PyResult<()> {
    for_each_row_of_work::<T, W>(py, shape, shape.tokens, rows, wanted, writes, run)
}

/// Does the same where a row takes as long as going through `work` logits, by which the number of threads is chosen.
pub(super) fn for_each_row_of_work<'a, T: ArrayElement, W: Send>(
    py: Python<'_>,
    shape: Shape,
    work: usize,
    rows: Rows<'a, T::Stored>,
    wanted: Option<usize>,
    mut writes: impl ExactSizeIterator<Item = W> + Send,
    run: impl Fn(&'a [T], usize, W, &mut Scratch) -> Result<(), RowError> + Send + Sync,
) -> PyResult<()> {
    if !shape.is_batch {
        let Some(write) = writes.next() else { return Ok(()) };
        let work = || with_scratch(shape.tokens, |scratch| run(T::slice(rows.row(0)), 0, write, scratch));
        return without_gil(py, shape.tokens, work).map_err(row_error);
    }
    let limit = if wanted.is_none() { threads_limit()? } else { None };
    let threads = batch::threads(wanted, limit, shape.rows, work);
    let failures = Failures::default();
    let batch = Batch::new(writes.enumerate(), threads, work);
    let one = |(row, write)| {
        let done = with_scratch(shape.tokens, |scratch| run(T::slice(rows.row(row)), row, write, scratch));
        if let Err(error) = done {
            failures.add(row, error);
        }
    };
    while !without_gil(py, shape.logits(), || batch.run_until(Instant::now() + BETWEEN_SIGNALS, one)) {
        py.check_signals()?; // no thread of the batch is running
    }
    failures.raise()
}

/// Stops numpy from resizing the logits, if the GIL will be released.
pub(super) fn pin<'py>(logits: &Logits<'py>) -> PyResult<Option<Pin<'py>>> {
    (logits.shape.logits() > FEW).then(|| logits.pin()).transpose()
}

// ---- tokens ---------------------------------------------------------------------------------------------------------

/// Runs `run` on each row and returns the tokens as the caller gets them: an int for one row, an int64 array for a batch, or
/// `out`.
pub(super) fn tokens<'py, T: ArrayElement>(
    py: Python<'py>,
    logits: &Logits<'py>,
    inputs: &Inputs<'py>,
    wanted: Option<usize>,
    out: Option<Out<'_, 'py>>,
    run: impl Fn(&[T], usize, &Contexts<'_>, &mut Scratch) -> Result<usize, RowError> + Send + Sync,
    mark: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let shape = logits.shape;
    let mut many = if shape.is_batch { Some(zeros::<i64>(py, &[shape.rows])?) } else { None };
    let mut one = [0i64];
    let _pins = (pin(logits)?, inputs.pin()?);
    if let Some(out) = &out {
        out.take::<i64>("int64", shape.per_row(), logits)?; // checked before the work, so that an error comes early
    }
    let (rows, contexts) = (logits.rows::<T>()?, inputs.contexts()?);
    let written = many.as_mut().map_or(&mut one[..], |many| slice_of_new(many));
    for_each_row::<T, _>(py, shape, rows, wanted, written.iter_mut(), |row, b, token, scratch| {
        match run(row, b, &contexts, scratch) {
            Ok(id) => *token = id as i64,
            Err(RowError::OutOfMemory) => return Err(RowError::OutOfMemory),
            Err(_) if mark => *token = -1,
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    if let Some(out) = &out {
        let tokens = many.as_mut().map_or(&mut one[..], |many| slice_of_new(many));
        out.take::<i64>("int64", shape.per_row(), logits)?.slice().copy_from_slice(tokens);
        return Ok(out.object.clone());
    }
    match many {
        Some(many) => Ok(many.into_any()),
        None => Ok(one[0].into_pyobject(py)?.into_any()),
    }
}

#[pyfunction]
pub(super) fn argmax<'py>(
    logits: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let (logits, inputs) = (Logits::read(logits)?, Inputs::default());
        with_element!(logits, |T| {
            let run = |row: &[T], _, _: &Contexts<'_>, scratch: &mut Scratch| recipe::argmax(isa, row, scratch);
            tokens::<T>(py, &logits, &inputs, wanted, None, run, false)
        })
    })
}

#[pyfunction]
pub(super) fn sample<'py>(logits: &Bound<'py, PyAny>, parameters: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa) = (logits.py(), current_isa()?);
        let (keywords, mut parameters) = (parameters, Parameters::default());
        let how = parameters.read_with_how(keywords)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        let shape = logits.shape;
        parameters.check(py, shape)?;
        let seed = parameters.fresh_seed(shape)?;
        let out = how.out.as_ref().map(|out| Out::read(out, "int64", shape.per_row())).transpose()?;
        with_element!(logits, |T| {
            let run = |row: &[T], b, contexts: &Contexts<'_>, scratch: &mut Scratch| {
                recipe::sample(isa, row, &parameters.get(b), &contexts.get(b), parameters.words(b, seed, 0), scratch)
            };
            tokens::<T>(py, &logits, &inputs, how.threads, out, run, how.mark)
        })
    })
}

/// Draws tokens for a `Sampler`, whose parameters were read when it was created.
#[pyfunction]
pub(super) fn draw<'py>(
    logits: &Bound<'py, PyAny>,
    params: &Bound<'py, Parameters>,
    seed: u64,
    position: u64,
    inputs: Option<&Bound<'py, PyDict>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let parameters = params.get();
        let (logits, inputs) = parameters.read_logits_with(inputs, logits)?;
        parameters.check(py, logits.shape)?;
        with_element!(logits, |T| {
            let run = |row: &[T], b, contexts: &Contexts<'_>, scratch: &mut Scratch| {
                recipe::sample(
                    isa,
                    row,
                    &parameters.get(b),
                    &contexts.get(b),
                    parameters.words(b, seed, position),
                    scratch,
                )
            };
            tokens::<T>(py, &logits, &inputs, wanted, None, run, false)
        })
    })
}

/// Draws tokens for a `Sampler` that has a state: the aim of mirostat for each row and, with adaptive-p, the average. Returns
/// the tokens, and arrays with the surprise and the probability of each.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(super) fn draw_with_odds<'py>(
    logits: &Bound<'py, PyAny>,
    params: &Bound<'py, Parameters>,
    mu: &Bound<'py, PyAny>,
    average: Option<&Bound<'py, PyAny>>,
    seed: u64,
    position: u64,
    inputs: Option<&Bound<'py, PyDict>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let (parameters, mu) = (params.get(), Reals::mirostat_mu(mu)?);
        let average = average.map(Reals::adaptive_average).transpose()?;
        let (logits, inputs) = parameters.read_logits_with(inputs, logits)?;
        let shape = logits.shape;
        parameters.check(py, shape)?;
        mu.check(shape)?;
        average.iter().try_for_each(|average| average.check(shape))?;
        let (mu, average) = (mu.values(), average.map(Reals::values));
        let mut tokens = zeros::<i64>(py, &[shape.rows])?;
        let (mut surprises, mut probs) = (zeros::<f64>(py, &[shape.rows])?, zeros::<f64>(py, &[shape.rows])?);
        with_element!(logits, |T| {
            let _pins = (pin(&logits)?, inputs.pin()?);
            let (rows, contexts) = (logits.rows::<T>()?, inputs.contexts()?);
            let odds = slice_of_new(&mut surprises).iter_mut().zip(slice_of_new(&mut probs));
            let written = slice_of_new(&mut tokens).iter_mut().zip(odds);
            for_each_row::<T, _>(py, shape, rows, wanted, written, |row, b, (token, (surprise, prob)), scratch| {
                let average = average.as_ref().map(|average| average.get(b));
                let params = Params { mirostat_mu: Some(mu.get(b)), adaptive_average: average, ..*parameters.get(b) };
                let (context, words) = (contexts.get(b), parameters.words(b, seed, position));
                let drawn = recipe::sample_with_interval(isa, row, &params, &context, words, scratch)?;
                (*token, *surprise, *prob) = (drawn.token as i64, drawn.odds.surprise(), drawn.odds.probability());
                Ok(())
            })?;
        });
        let tokens = match shape.is_batch {
            true => tokens.into_any(),
            false => slice_of_new(&mut tokens)[0].into_pyobject(py)?.into_any(),
        };
        Ok((tokens, surprises.into_any(), probs.into_any()))
    })
}

/// The position of a sampler's next token: a counter that threads share without a lock.
#[pyclass(frozen)]
pub(super) struct Counter(AtomicU64);

#[pymethods]
impl Counter {
    #[new]
    fn new(value: u64) -> Self {
        Counter(AtomicU64::new(value))
    }

    /// Returns the next position and counts it as used.
    fn take(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives a position back, unless another one has been taken since.
    fn give_back(&self, position: u64) {
        let next = position.wrapping_add(1);
        let _ = self.0.compare_exchange(next, position, Ordering::Relaxed, Ordering::Relaxed);
    }

    #[getter]
    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

#[pyfunction]
pub(super) fn mask_logits<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let parameters = Parameters::read(parameters)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        let shape = logits.shape;
        parameters.check(py, shape)?;
        let seed = parameters.fresh_seed_of_filters()?;
        with_element!(logits, |T| {
            let mut masked = zeros::<<T as ArrayElement>::Stored>(py, shape.wide(shape.tokens, &mut [0; 2]))?;
            let _pins = (pin(&logits)?, inputs.pin()?);
            let contexts = inputs.contexts()?;
            let rows = logits.rows::<T>()?;
            let written = T::slice_mut(slice_of_new(&mut masked)).chunks_exact_mut(shape.tokens);
            for_each_row::<T, _>(py, shape, rows, wanted, written, |row, b, out, scratch| {
                let words = parameters.words(b, seed, 0);
                recipe::mask_logits(isa, row, &parameters.get(b), &contexts.get(b), words, out, scratch)
            })?;
            Ok(masked.into_any())
        })
    })
}

#[pyfunction]
pub(super) fn softmax<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| probabilities(logits, temperature, out, num_threads, false))
}

#[pyfunction]
pub(super) fn log_softmax<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| probabilities(logits, temperature, out, num_threads, true))
}

fn probabilities<'py>(
    logits: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
    log: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
    let temperatures = Reals::temperature(temperature)?;
    let logits = Logits::read(logits)?;
    let shape = logits.shape;
    temperatures.check(shape)?;
    let temperatures = temperatures.values();
    let mut dimensions = [0; 2];
    let dimensions = shape.wide(shape.tokens, &mut dimensions);
    let out = out.map(|out| Out::read(out, "float32", dimensions)).transpose()?;
    let mut new = if out.is_none() { Some(zeros::<f32>(py, dimensions)?) } else { None };
    let _pins = (pin(&logits)?, out.as_ref().map(Out::pin).transpose()?);
    let mut writing = out.as_ref().map(|out| out.take::<f32>("float32", dimensions, &logits)).transpose()?;
    with_element!(logits, |T| {
        let rows = logits.rows::<T>()?;
        if writing.is_some() && shape.is_batch {
            // If a row is bad, the caller's array must stay unchanged, so all rows are checked before the first is written.
            let nothing = (0..shape.rows).map(|_| ());
            for_each_row::<T, _>(py, shape, rows, wanted, nothing, |row, _, (), scratch| {
                recipe::argmax(isa, row, scratch).map(|_| ())
            })?;
        }
        let written = match (&mut writing, &mut new) {
            (Some(writing), _) => writing.slice(),
            (None, Some(new)) => slice_of_new(new),
            (None, None) => &mut [],
        };
        for_each_row::<T, _>(py, shape, rows, wanted, written.chunks_exact_mut(shape.tokens), |row, b, out, scratch| {
            match log {
                false => recipe::softmax(isa, row, temperatures.get(b), out, scratch),
                true => recipe::log_softmax(isa, row, temperatures.get(b), out, scratch),
            }
        })
    })?;
    drop(writing);
    match (out, new) {
        (Some(out), _) => Ok(out.object.clone()),
        (None, new) => Ok(new.into_pyobject(py)?.into_any()),
    }
}

#[pyfunction]
pub(super) fn top_k<'py>(
    logits: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let k = TopK::read(k)?;
        let logits = Logits::read(logits)?;
        let shape = logits.shape;
        let k = k.up_to(shape.tokens)?;
        let mut dimensions = [0; 2];
        let dimensions = shape.wide(k, &mut dimensions);
        with_element!(logits, |T| {
            let mut values = zeros::<<T as ArrayElement>::Stored>(py, dimensions)?;
            let mut ids = zeros::<i64>(py, dimensions)?;
            let _pin = pin(&logits)?;
            let rows = logits.rows::<T>()?;
            let written_values = T::slice_mut(slice_of_new(&mut values)).chunks_exact_mut(k);
            let written = written_values.zip(slice_of_new(&mut ids).chunks_exact_mut(k));
            for_each_row::<T, _>(py, shape, rows, wanted, written, |row, _, (values, ids), scratch| {
                recipe::top_k(isa, row, values, ids, scratch)
            })?;
            Ok((values.into_any(), ids.into_any()))
        })
    })
}
