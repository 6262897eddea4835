//! Kept sets: what the filters keep of each row, and the log-probability of a token among what was kept.

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arrays::{Logits, Shape, convert_all, slice_of_new, with_element, zeros};
use super::errors::{guarded, row_error, value_error};
use super::functions::{current_isa, for_each_row, for_each_row_of_work, pin, without_gil};
use super::parameters::{Parameters, Reals, read_threads};
use crate::error::reserve;
use crate::recipe::{self, KeptSet};

/// Lists what the parameters keep. Returns, for one row, the ids and their probabilities; for a batch, the ids, masses and
/// probabilities of all rows, and where those of each row begin.
#[pyfunction]
pub(super) fn candidates<'py>(
    logits: &Bound<'py, PyAny>,
    parameters: &Bound<'py, PyDict>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let parameters = Parameters::read(parameters)?;
        let (logits, inputs) = parameters.read_logits(logits)?;
        let shape = logits.shape;
        parameters.check(py, shape)?;
        let seed = parameters.fresh_seed_of_filters()?;
        let mut sets: Vec<KeptSet> = Vec::new();
        reserve(&mut sets, shape.rows).map_err(row_error)?;
        sets.resize_with(shape.rows, KeptSet::default);
        with_element!(logits, |T| {
            let _pins = (pin(&logits)?, inputs.pin()?);
            let contexts = inputs.contexts()?;
            let rows = logits.rows::<T>()?;
            for_each_row::<T, _>(py, shape, rows, wanted, sets.iter_mut(), |row, b, kept, scratch| {
                let words = parameters.words(b, seed, 0);
                *kept = recipe::kept_set(isa, row, &parameters.get(b), &contexts.get(b), words, scratch)?;
                Ok(())
            })?;
        });
        let count = sets.iter().map(|kept| kept.ids.len()).sum();
        let (mut ids, mut probs) = (zeros::<i64>(py, &[count])?, zeros::<f64>(py, &[count])?);
        let (mut masses, mut offsets) = (zeros::<u64>(py, &[count])?, zeros::<i64>(py, &[shape.rows + 1])?);
        let joined = Joined {
            ids: slice_of_new(&mut ids),
            masses: slice_of_new(&mut masses),
            probs: slice_of_new(&mut probs),
            offsets: slice_of_new(&mut offsets),
        };
        without_gil(py, count, || joined.fill(sets));
        match shape.is_batch {
            true => (ids, masses, probs, offsets).into_pyobject(py),
            false => (ids, probs).into_pyobject(py),
        }
    })
}

/// The arrays of the kept sets of a batch.
struct Joined<'a> {
    ids: &'a mut [i64],
    masses: &'a mut [u64],
    probs: &'a mut [f64],
    /// Where the tokens of each row begin, followed by where those of the last row end.
    offsets: &'a mut [i64],
}

impl Joined<'_> {
    /// Copies the set of each row to its place, and frees its memory.
    fn fill(self, sets: Vec<KeptSet>) {
        let mut begin = 0;
        for (kept, offset) in sets.into_iter().zip(&mut self.offsets[1..]) {
            let place = begin..begin + kept.ids.len();
            let total = kept.total() as f64;
            self.ids[place.clone()].copy_from_slice(&kept.ids);
            self.masses[place.clone()].copy_from_slice(&kept.masses);
            for (prob, &mass) in self.probs[place.clone()].iter_mut().zip(&kept.masses) {
                *prob = mass as f64 / total;
            }
            begin = place.end;
            *offset = begin as i64;
        }
    }
}

/// A kept id is in a cache line of its own, and far from the next. Reading it takes as long as going through this many logits.
const WORK_OF_ID: usize = 32;

/// Returns the log-probability of the token of each row under the kept set of the row. `_sets.py` has checked the sets.
#[pyfunction]
pub(super) fn replay<'py>(
    logits: &Bound<'py, PyAny>,
    ids: &Bound<'py, PyArray1<i64>>,
    offsets: &Bound<'py, PyArray1<i64>>,
    tokens: &Bound<'py, PyArray1<i64>>,
    temperature: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let (py, isa, wanted) = (logits.py(), current_isa()?, read_threads(num_threads)?);
        let temperatures = Reals::temperature(temperature)?;
        let logits = Logits::read(logits)?;
        let shape = logits.shape;
        temperatures.check(shape)?;
        let temperatures = temperatures.values();
        let sets = Sets::read(ids, offsets, tokens, shape)?;
        let work = (sets.ids.len() / shape.rows.max(1)).saturating_mul(WORK_OF_ID);
        let mut logprobs = zeros::<f64>(py, &[shape.rows])?;
        with_element!(logits, |T| {
            let _pin = pin(&logits)?;
            let rows = logits.rows::<T>()?;
            let written = slice_of_new(&mut logprobs).iter_mut();
            for_each_row_of_work::<T, _>(py, shape, work, rows, wanted, written, |row, b, logprob, scratch| {
                let (ids, token) = sets.get(b);
                *logprob = recipe::replay(isa, row, ids, token, temperatures.get(b), scratch)?;
                Ok(())
            })?;
        });
        Ok(logprobs.into_any())
    })
}

/// The kept set of each row of a batch, and a token for each row.
struct Sets {
    /// The ids of all rows.
    ids: Vec<u32>,
    /// Where the ids of each row begin, followed by where those of the last row end.
    offsets: Vec<usize>,
    tokens: Vec<u32>,
}

impl Sets {
    fn read(
        ids: &Bound<'_, PyArray1<i64>>,
        offsets: &Bound<'_, PyArray1<i64>>,
        tokens: &Bound<'_, PyArray1<i64>>,
        shape: Shape,
    ) -> PyResult<Self> {
        let as_id = |id| u32::try_from(id).ok().filter(|&id| (id as usize) < shape.tokens);
        let (ids, tokens) = (convert_all(ids, as_id)?, convert_all(tokens, as_id)?);
        let offsets = convert_all(offsets, |offset| usize::try_from(offset).ok())?;
        let wrong = || value_error("ids, offsets and tokens must be the kept sets of the rows, got others");
        let (Some(ids), Some(offsets), Some(tokens)) = (ids, offsets, tokens) else { return Err(wrong()) };
        let are_all = offsets.first() == Some(&0) && offsets.last() == Some(&ids.len());
        let none_is_empty = offsets.is_sorted_by(|begin, end| begin < end);
        if !(are_all && none_is_empty && offsets.len() == shape.rows + 1 && tokens.len() == shape.rows) {
            return Err(wrong());
        }
        let sets = Sets { ids, offsets, tokens };
        match sets.first_twice(shape)? {
            Some((row, id)) => {
                Err(value_error(format!("ids must name each token of a row once, got {id} twice in row {row}")))
            }
            None => Ok(sets),
        }
    }

    /// Returns the first row whose set has a token twice, and the lowest id of such a token.
    fn first_twice(&self, shape: Shape) -> PyResult<Option<(usize, u32)>> {
        let mut seen: Vec<u64> = Vec::new();
        reserve(&mut seen, shape.tokens.div_ceil(64)).map_err(row_error)?;
        seen.resize(shape.tokens.div_ceil(64), 0);
        for row in 0..shape.rows {
            let (ids, _) = self.get(row);
            let mut is_twice = false;
            for &id in ids {
                let (word, bit) = (&mut seen[id as usize / 64], 1 << (id % 64));
                is_twice |= *word & bit != 0;
                *word |= bit;
            }
            if is_twice {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                return Ok(ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| (row, pair[0])));
            }
            ids.iter().for_each(|&id| seen[id as usize / 64] = 0);
        }
        Ok(None)
    }

    /// Returns the ids of a row, and its token.
    fn get(&self, row: usize) -> (&[u32], u32) {
        (&self.ids[self.offsets[row]..self.offsets[row + 1]], self.tokens[row])
    }
}
