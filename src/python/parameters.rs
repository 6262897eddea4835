//! Reads the parameters of a call. A parameter is one value for all rows, or one value for each row of a batch.
//!
//! Numbers of Python's and numpy's own types that are in range are read here. Everything else goes to `_parameters.py`. The
//! numpy reference reads its parameters there too, so both accept the same values and raise the same errors.

use std::borrow::Cow;
use std::ops::Not;

use numpy::npyffi::NpyTypes;
use numpy::{Element, PyArray1, PyArrayMethods};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString};

use super::arrays::{Logits, Shape, is_numpy_scalar};
use super::errors::{call_check, guarded, value_error};
use super::inputs::{INPUTS, Inputs};
use super::rules::{OF_FILTERS, RULES};
use crate::params::{Parameter, Params, Set, TABLE, is_mu, is_share, is_temperature};
use crate::rng::{Draws, Place, Words, words};
use crate::steps::{Step, Steps};

/// One value for all rows, or one value for each row of a batch.
pub(super) enum PerRow<P> {
    One(P),
    Many(Vec<P>),
}

impl<P: Copy> PerRow<P> {
    pub(super) fn get(&self, row: usize) -> P {
        match self {
            PerRow::One(value) => *value,
            PerRow::Many(values) => values[row],
        }
    }
}

/// The type of a parameter.
pub(super) trait Number: Copy + Element {
    /// Reads a number of Python's or numpy's own types. Runs no Python code, except that of a subclass of these types.
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

/// Reads a parameter. May run Python code.
#[inline]
fn read<'py, P: Number + for<'b> FromPyObject<'b, 'py>>(
    name: &'static str,
    given: &Bound<'py, PyAny>,
    holds: impl Fn(P) -> bool,
) -> PyResult<PerRow<P>> {
    match P::read(given) {
        Some(value) if holds(value) => Ok(PerRow::One(value)),
        _ => read_other(name, given, holds),
    }
}

#[cold]
fn read_other<'py, P: Number + for<'b> FromPyObject<'b, 'py>>(
    name: &'static str,
    given: &Bound<'py, PyAny>,
    holds: impl Fn(P) -> bool,
) -> PyResult<PerRow<P>> {
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

/// A parameter with one value for each row, and what the caller passed for it. `check` compares the number of values with the
/// number of rows, once that is known.
struct Many<P> {
    name: &'static str,
    given: Py<PyAny>,
    values: P,
}

impl<P> Many<P> {
    /// Returns an error unless there are as many values as rows.
    fn check(&self, py: Python<'_>, count: usize, shape: Shape) -> PyResult<()> {
        if !(shape.is_batch && count == shape.rows) {
            call_check(py, "check_count", (self.name, &self.given, count, shape.rows, shape.is_batch))?;
        }
        Ok(())
    }
}

/// The values of a parameter of [`TABLE`], one for each row, and the function that sets one.
enum Column {
    Real(Vec<f64>, fn(&mut Params, f64)),
    Count(Vec<u64>, fn(&mut Params, u64)),
}

impl Column {
    /// True if a row has a value that does something.
    fn is_on(&self, parameter: &Parameter) -> bool {
        let is_off = |row| {
            let mut params = Params::default();
            self.set(row, &mut params);
            parameter.is_off(&params)
        };
        !(0..self.len()).all(is_off)
    }

    fn len(&self) -> usize {
        match self {
            Column::Real(values, _) => values.len(),
            Column::Count(values, _) => values.len(),
        }
    }

    fn set(&self, row: usize, params: &mut Params) {
        match self {
            Column::Real(values, set) => set(params, values[row]),
            Column::Count(values, set) => set(params, values[row]),
        }
    }
}

/// The seed, the stream or the position. Each row may have its own.
#[derive(Default)]
enum Word {
    #[default]
    Unset,
    One(u64),
    Many(Many<Vec<u64>>),
}

impl Word {
    fn read(name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match read::<u64>(name, given, |_| true)? {
            PerRow::One(value) => Word::One(value),
            PerRow::Many(values) => Word::Many(Many { name, given: given.clone().unbind(), values }),
        })
    }

    fn check(&self, py: Python<'_>, shape: Shape) -> PyResult<()> {
        match self {
            Word::Many(many) => many.check(py, many.values.len(), shape),
            _ => Ok(()),
        }
    }

    fn get(&self, row: usize) -> Option<u64> {
        match self {
            Word::Unset => None,
            Word::One(value) => Some(*value),
            Word::Many(many) => Some(many.values[row]),
        }
    }
}

/// The parameters of a draw, read from a dictionary of their names and values. Each value is in its range.
#[pyclass(frozen, name = "Params")]
#[derive(Default)]
pub(super) struct Parameters {
    /// The parameters that are the same for all rows.
    params: Params,
    /// The parameters that have a value for each row.
    columns: Vec<Many<Column>>,
    seed: Word,
    stream: Word,
    position: Word,
    /// The parameters that change logits, and the order, as they were given. Without an input they change none.
    edits: Vec<(&'static str, Py<PyAny>)>,
    /// The inputs, as they were given: they are read when the number of tokens is known.
    inputs: Vec<(&'static str, Py<PyAny>)>,
}

#[pymethods]
impl Parameters {
    #[new]
    fn new(parameters: &Bound<'_, PyDict>) -> PyResult<Self> {
        guarded(|| Parameters::read(parameters))
    }
}

/// What may be named beside the parameters of [`TABLE`]: which random word to draw with, in which order to apply the steps,
/// and how to make the call.
const OTHERS: [&str; 9] =
    ["seed", "position", "stream", "order", "mirostat_mu", "adaptive_average", "errors", "num_threads", "out"];

/// All names. Those that most calls use come first, as they are looked for in this order.
fn all_names() -> impl Iterator<Item = Name> {
    let (edits, filters): (Vec<_>, Vec<_>) = TABLE.iter().partition(|parameter| parameter.is_edit);
    let others = OTHERS.into_iter().map(Name::Other);
    let inputs = INPUTS.into_iter().chain(RULES).map(Name::Input);
    filters.into_iter().map(Name::Parameter).chain(others).chain(edits.into_iter().map(Name::Parameter)).chain(inputs)
}

/// The names, each with its text as Python's interned string.
static NAMES: PyOnceLock<Vec<(Py<PyString>, Name)>> = PyOnceLock::new();

fn names(py: Python<'_>) -> &[(Py<PyString>, Name)] {
    NAMES.get_or_init(py, || all_names().map(|name| (PyString::intern(py, name.text()).unbind(), name)).collect())
}

/// Interns the names. This is done once a process, as `mod.rs` explains.
pub(super) fn look_up_once(py: Python<'_>) {
    names(py);
}

/// A name from a dictionary of parameters.
#[derive(Clone, Copy)]
enum Name {
    Parameter(&'static Parameter),
    Other(&'static str),
    Input(&'static str),
}

impl Name {
    /// Python interns the keywords of a call, so comparing addresses is enough for them.
    #[inline]
    fn of(key: &Bound<'_, PyAny>) -> PyResult<Name> {
        match names(key.py()).iter().find(|(text, _)| text.as_ptr() == key.as_ptr()) {
            Some((_, name)) => Ok(*name),
            None => Name::by_text(key),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Name::Parameter(parameter) => parameter.name,
            Name::Other(text) | Name::Input(text) => text,
        }
    }

    #[cold]
    fn by_text(key: &Bound<'_, PyAny>) -> PyResult<Name> {
        if let Some(text) = key.cast::<PyString>().ok().and_then(|key| key.to_str().ok())
            && let Some(name) = all_names().find(|name| name.text() == text)
        {
            return Ok(name);
        }
        Err(Name::unexpected(key))
    }

    #[cold]
    fn unexpected(key: &Bound<'_, PyAny>) -> PyErr {
        let raised = call_check(key.py(), "unexpected", (key,));
        raised.err().unwrap_or_else(|| value_error("a parameter must have a name that toksample knows"))
    }
}

/// The arguments of `sample` that say how to make the call, and do not affect the draw.
#[derive(Default)]
pub(super) struct How<'py> {
    /// True if a row without an answer gets -1; false if it raises an error.
    pub(super) mark: bool,
    pub(super) threads: Option<usize>,
    pub(super) out: Option<Bound<'py, PyAny>>,
}

impl Parameters {
    /// Reads a dictionary that holds only the parameters of the draw. May run Python code.
    pub(super) fn read(given: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut parameters = Parameters::default();
        for (key, value) in given {
            match Name::of(&key)? {
                Name::Parameter(parameter) => parameters.set(parameter, &value)?,
                Name::Other(name @ ("seed" | "position" | "stream")) => parameters.set_word(name, &value)?,
                Name::Input(name) => parameters.set_input(name, &value),
                Name::Other("order") => parameters.set_order(&value)?,
                Name::Other(name @ ("mirostat_mu" | "adaptive_average")) => parameters.set_state(name, &value)?,
                Name::Other(_) => return Err(Name::unexpected(&key)),
            }
        }
        parameters.check_order(given.py())?;
        Ok(parameters)
    }

    /// Sets the parameters that a dictionary names, which also says how to make the call. May run Python code. This returns no
    /// parameters, because a short call would spend a part of its time on moving them.
    #[inline]
    pub(super) fn read_with_how<'py>(&mut self, given: &Bound<'py, PyDict>) -> PyResult<How<'py>> {
        let mut how = How::default();
        for (key, value) in given {
            match Name::of(&key)? {
                Name::Parameter(parameter) => self.set(parameter, &value)?,
                Name::Other("order") => self.set_order(&value)?,
                Name::Other(name @ ("mirostat_mu" | "adaptive_average")) => self.set_state(name, &value)?,
                Name::Other("errors") => how.mark = read_errors(&value)?,
                Name::Other("num_threads") => how.threads = read_threads(value.is_none().not().then_some(&value))?,
                Name::Other("out") => how.out = value.is_none().not().then_some(value),
                Name::Other(name) => self.set_word(name, &value)?,
                Name::Input(name) => self.set_input(name, &value),
            }
        }
        self.check_order(given.py())?;
        Ok(how)
    }

    fn set_input(&mut self, name: &'static str, given: &Bound<'_, PyAny>) {
        if !given.is_none() {
            self.inputs.push((name, given.clone().unbind()));
        }
    }

    /// Reads an order, which `_parameters.py` turns into the names of its steps.
    #[cold]
    fn set_order(&mut self, given: &Bound<'_, PyAny>) -> PyResult<()> {
        if given.is_none() {
            return Ok(());
        }
        let read = call_check(given.py(), "steps", (given,))?;
        let names: Vec<String> = read.extract()?;
        self.edits.push(("order", read.unbind()));
        let step = |name: &String| Step::ALL.iter().copied().find(|step| step.name() == name);
        let steps: Option<Vec<Step>> = names.iter().map(step).collect();
        self.params.order = Some(
            steps
                .and_then(|steps| Steps::new(&steps))
                .ok_or_else(|| value_error("order must have steps that toksample knows"))?,
        );
        Ok(())
    }

    /// Reads a part of the state of a method: the aim of mirostat or the average of adaptive-p.
    #[cold]
    fn set_state(&mut self, name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<()> {
        if given.is_none() {
            return Ok(());
        }
        let set: fn(&mut Params, f64) = match name {
            "mirostat_mu" => |params, value| params.mirostat_mu = Some(value),
            _ => |params, value| params.adaptive_average = Some(value),
        };
        match read::<f64>(name, given, if name == "mirostat_mu" { is_mu } else { is_share })? {
            PerRow::One(value) => set(&mut self.params, value),
            PerRow::Many(values) => {
                let values = Column::Real(values, set);
                self.columns.push(Many { name, given: given.clone().unbind(), values });
            }
        }
        Ok(())
    }

    /// Sees that the order has a step for each filter that is on.
    #[inline]
    fn check_order(&self, py: Python<'_>) -> PyResult<()> {
        let Some(order) = &self.params.order else { return Ok(()) };
        for parameter in TABLE.iter().filter(|parameter| !parameter.is_edit) {
            let mut columns = self.columns.iter().filter(|column| column.name == parameter.name);
            let is_on = !parameter.is_off(&self.params) || columns.any(|column| column.values.is_on(parameter));
            let has_step = Step::ALL.iter().any(|step| step.parameters().contains(&parameter.name));
            if is_on && has_step && !order.filter_by(parameter.name) {
                let given = self.edits.iter().find(|(name, _)| *name == "order").map(|(_, given)| given);
                call_check(py, "not_in_order", (parameter.name, given))?;
                return Err(value_error("order must have a step for each filter that is on"));
            }
        }
        Ok(())
    }

    #[inline]
    fn set_word(&mut self, name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<()> {
        if given.is_none() && name != "position" {
            return Ok(()); // None means the default, but the position does not accept it
        }
        let word = match name {
            "seed" => &mut self.seed,
            "stream" => &mut self.stream,
            _ => &mut self.position,
        };
        *word = Word::read(name, given)?;
        Ok(())
    }

    #[inline]
    fn set(&mut self, parameter: &'static Parameter, given: &Bound<'_, PyAny>) -> PyResult<()> {
        if given.is_none() {
            return Ok(()); // None means the default, which is off
        }
        let Parameter { name, is_edit, set, .. } = parameter;
        if *is_edit {
            self.edits.push((name, given.clone().unbind()));
        }
        let column = match *set {
            Set::Real(holds, set) => match read::<f64>(name, given, holds)? {
                PerRow::One(value) => {
                    set(&mut self.params, value);
                    return Ok(());
                }
                PerRow::Many(values) => Column::Real(values, set),
            },
            Set::Count(holds, set) => match read::<u64>(name, given, holds)? {
                PerRow::One(value) => {
                    set(&mut self.params, value);
                    return Ok(());
                }
                PerRow::Many(values) => Column::Count(values, set),
            },
        };
        self.columns.push(Many { name, given: given.clone().unbind(), values: column });
        Ok(())
    }

    /// Reads the logits and the inputs. Inputs that were already applied to the logits are left out. May run Python code.
    #[inline]
    pub(super) fn read_logits<'py>(&self, logits: &Bound<'py, PyAny>) -> PyResult<(Logits<'py>, Inputs<'py>)> {
        if self.inputs.is_empty() {
            return Ok((Logits::read(logits)?, Inputs::default()));
        }
        self.read_logits_to_edit(&self.inputs, logits)
    }

    /// Does the same with the inputs of one call, if there are any, which replace those of the same name.
    #[inline]
    pub(super) fn read_logits_with<'py>(
        &self,
        inputs: Option<&Bound<'py, PyDict>>,
        logits: &Bound<'py, PyAny>,
    ) -> PyResult<(Logits<'py>, Inputs<'py>)> {
        let Some(inputs) = inputs else { return self.read_logits(logits) };
        let py = logits.py();
        let mut read: Vec<_> = self.inputs.iter().map(|(name, given)| (*name, given.clone_ref(py))).collect();
        for (key, value) in inputs {
            let Name::Input(name) = Name::of(&key)? else { return Err(Name::unexpected(&key)) };
            read.retain(|(other, _)| *other != name);
            if !value.is_none() {
                read.push((name, value.unbind()));
            }
        }
        self.read_logits_to_edit(&read, logits)
    }

    fn read_logits_to_edit<'py>(
        &self,
        inputs: &[(&'static str, Py<PyAny>)],
        logits: &Bound<'py, PyAny>,
    ) -> PyResult<(Logits<'py>, Inputs<'py>)> {
        let py = logits.py();
        let as_dict = || {
            let dict = PyDict::new(py);
            self.edits.iter().chain(inputs).try_for_each(|(name, given)| dict.set_item(name, given))?;
            Ok(Some(dict))
        };
        let logits = Logits::read_to_edit(logits, as_dict)?;
        let is_left = |name: &str| !logits.is_edited || OF_FILTERS.contains(&name);
        let inputs = Inputs::read(inputs.iter().filter(|(name, _)| is_left(name)), py, logits.shape)?;
        Ok((logits, inputs))
    }

    /// Returns an error unless there is one value for all rows, or one for each row.
    #[inline]
    pub(super) fn check(&self, py: Python<'_>, shape: Shape) -> PyResult<()> {
        for column in &self.columns {
            column.check(py, column.values.len(), shape)?;
        }
        self.seed.check(py, shape)?;
        self.stream.check(py, shape)?;
        self.position.check(py, shape)
    }

    /// Returns the parameters of a row. Call `check` first.
    pub(super) fn get(&self, row: usize) -> Cow<'_, Params> {
        let mut params = Cow::Borrowed(&self.params);
        for column in &self.columns {
            column.values.set(row, params.to_mut());
        }
        params
    }

    /// Returns a seed to use if none was given: fresh entropy, or 0 if every row is greedy, because asking the system for
    /// entropy takes longer than a short greedy row.
    pub(super) fn fresh_seed(&self, shape: Shape) -> PyResult<u64> {
        let is_greedy = |row| self.get(row).temperature == 0.0;
        let rows = if self.columns.is_empty() { 1 } else { shape.rows };
        if !matches!(self.seed, Word::Unset) || (0..rows).all(is_greedy) {
            return Ok(0);
        }
        getrandom::u64().map_err(|e| PyOSError::new_err(e.to_string()))
    }

    /// The same, where a word is needed only by a filter that is random.
    pub(super) fn fresh_seed_of_filters(&self) -> PyResult<u64> {
        let is_random = self.params.xtc_probability != 0.0 || !self.columns.is_empty();
        if !is_random || !matches!(self.seed, Word::Unset) {
            return Ok(0);
        }
        getrandom::u64().map_err(|e| PyOSError::new_err(e.to_string()))
    }

    /// The draws of `n` tokens from a row. Without a stream, those of the rows follow each other.
    pub(super) fn draws(&self, row: usize, seed: u64, position: u64, (n, replacement): (usize, bool)) -> Draws {
        Draws {
            seed: self.seed.get(row).unwrap_or(seed),
            stream: self.stream.get(row).unwrap_or((row as u64).wrapping_mul(n as u64)),
            position: self.position.get(row).unwrap_or(position),
            replacement,
        }
    }

    /// The random words of a row, by its own seed and position if it has them. They have been checked.
    pub(super) fn words(&self, row: usize, seed: u64, position: u64) -> Words {
        let Place { seed, stream, position } = self.place(row, seed, position);
        words(seed, stream, position)
    }

    /// The seed, the stream and the position of a row, which has its own seed and position or these.
    pub(super) fn place(&self, row: usize, seed: u64, position: u64) -> Place {
        Place {
            seed: self.seed.get(row).unwrap_or(seed),
            stream: self.stream.get(row).unwrap_or(row as u64),
            position: self.position.get(row).unwrap_or(position),
        }
    }
}

/// An argument that is one number for all rows, or one for each.
pub(super) struct Reals<'a, 'py> {
    name: &'static str,
    given: &'a Bound<'py, PyAny>,
    values: PerRow<f64>,
}

impl<'a, 'py> Reals<'a, 'py> {
    /// Reads the temperatures of a function that has no other parameter. May run Python code.
    pub(super) fn temperature(given: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Reals { name: "temperature", given, values: read("temperature", given, is_temperature)? })
    }

    /// Reads the aims of mirostat. May run Python code.
    pub(super) fn mirostat_mu(given: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Reals { name: "mirostat_mu", given, values: read("mirostat_mu", given, is_mu)? })
    }

    /// Reads the averages of adaptive-p. May run Python code.
    pub(super) fn adaptive_average(given: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Reals { name: "adaptive_average", given, values: read("adaptive_average", given, is_share)? })
    }

    /// Returns an error unless there is one value for all rows, or one for each row.
    pub(super) fn check(&self, shape: Shape) -> PyResult<()> {
        match &self.values {
            PerRow::Many(values) if !(shape.is_batch && values.len() == shape.rows) => {
                let count = (self.name, self.given, values.len(), shape.rows, shape.is_batch);
                call_check(self.given.py(), "check_count", count).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn values(self) -> PerRow<f64> {
        self.values
    }
}

/// Reads the argument `num_threads`. May run Python code.
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

/// The argument k of the function `top_k`, before the number of tokens is known.
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

    /// Returns k if it is in [1, most], and an error otherwise.
    pub(super) fn up_to(self, most: usize) -> PyResult<usize> {
        match self.k {
            Some(k) if (1..=most).contains(&k) => Ok(k),
            _ => call_check(self.given.py(), "count", ("k", self.given, most))?.extract(),
        }
    }
}

/// Reads the argument `errors`: true to mark rows without an answer, false to raise an error.
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
