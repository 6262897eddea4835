//! Rules for some of the tokens: lists of ids, sequences of ids, and what goes with them.
//!
//! Lists of plain integers are read here. `_parameters.py` reads everything else, and words the errors.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyTuple};

use super::arrays::Shape;
use super::errors::{call_check, value_error};
use crate::context;

/// The names of the rules.
pub(super) const RULES: [&str; 11] = [
    "allowed_token_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "eos_token_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "sequence_bias",
    "bad_words_ids",
    "dry_sequence_breakers",
    "exponential_decay_length_penalty",
    "xtc_exempt_token_ids",
];

/// The rules of filters, which do not edit logits.
pub(super) const OF_FILTERS: [&str; 1] = ["xtc_exempt_token_ids"];

/// What a rule says for all rows, or for each of them. It is empty if the rule was not given.
type Each<P> = Vec<Option<P>>;

/// The rules of a call, read.
#[derive(Default)]
pub(super) struct Rules {
    allowed_token_ids: Each<Vec<u32>>,
    suppress_tokens: Each<Vec<u32>>,
    begin_suppress_tokens: Each<Vec<u32>>,
    eos_token_ids: Each<Vec<u32>>,
    forced_bos_token_id: Each<u32>,
    forced_eos_token_id: Each<u32>,
    sequence_bias: Each<Vec<(Vec<u32>, f64)>>,
    bad_words_ids: Each<Vec<Vec<u32>>>,
    dry_sequence_breakers: Each<Vec<u32>>,
    exponential_decay_length_penalty: Each<(u64, f64)>,
    xtc_exempt_token_ids: Each<Vec<u32>>,
}

impl Rules {
    /// Reads the rule of this name. May run Python code.
    pub(super) fn set(&mut self, name: &str, given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<()> {
        match name {
            "allowed_token_ids" => self.allowed_token_ids = ids(name, given, shape)?,
            "suppress_tokens" => self.suppress_tokens = ids(name, given, shape)?,
            "begin_suppress_tokens" => self.begin_suppress_tokens = ids(name, given, shape)?,
            "eos_token_ids" => self.eos_token_ids = ids(name, given, shape)?,
            "forced_bos_token_id" => self.forced_bos_token_id = each(name, given, shape)?,
            "forced_eos_token_id" => self.forced_eos_token_id = each(name, given, shape)?,
            "sequence_bias" => self.sequence_bias = each(name, given, shape)?,
            "bad_words_ids" => self.bad_words_ids = words(name, given, shape)?,
            "dry_sequence_breakers" => self.dry_sequence_breakers = ids(name, given, shape)?,
            "xtc_exempt_token_ids" => self.xtc_exempt_token_ids = ids(name, given, shape)?,
            _ => self.exponential_decay_length_penalty = each(name, given, shape)?,
        }
        Ok(())
    }

    /// The rules of a row.
    pub(super) fn get(&self, row: usize) -> context::Rules<'_> {
        context::Rules {
            allowed_token_ids: of_row(&self.allowed_token_ids, row).map(Vec::as_slice),
            suppress_tokens: list_of_row(&self.suppress_tokens, row),
            begin_suppress_tokens: list_of_row(&self.begin_suppress_tokens, row),
            eos_token_ids: list_of_row(&self.eos_token_ids, row),
            forced_bos_token_id: of_row(&self.forced_bos_token_id, row).copied(),
            forced_eos_token_id: of_row(&self.forced_eos_token_id, row).copied(),
            sequence_bias: list_of_row(&self.sequence_bias, row),
            bad_words_ids: list_of_row(&self.bad_words_ids, row),
            dry_sequence_breakers: list_of_row(&self.dry_sequence_breakers, row),
            exponential_decay_length_penalty: of_row(&self.exponential_decay_length_penalty, row).copied(),
            xtc_exempt_token_ids: list_of_row(&self.xtc_exempt_token_ids, row),
        }
    }
}

fn of_row<P>(each: &Each<P>, row: usize) -> Option<&P> {
    each.get(if each.len() == 1 { 0 } else { row })?.as_ref()
}

fn list_of_row<P>(each: &Each<Vec<P>>, row: usize) -> &[P] {
    of_row(each, row).map_or(&[], Vec::as_slice)
}

/// Has `_parameters.py` read a rule: a list with what it says for all rows, or for each of them.
fn each<'py, P: for<'b> FromPyObject<'b, 'py>>(
    name: &str,
    given: &Bound<'py, PyAny>,
    shape: Shape,
) -> PyResult<Each<P>> {
    let read = call_check(given.py(), "rule", (name, given, shape.rows, shape.is_batch, shape.tokens))?;
    let each: Each<P> = read.extract()?;
    if each.len() == 1 || each.len() == shape.rows {
        return Ok(each);
    }
    Err(value_error(format!("{name} could not be converted")))
}

fn ids(name: &str, given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<Each<Vec<u32>>> {
    match plain_ids(given, shape.tokens) {
        Some(ids) => Ok(vec![Some(ids)]),
        None => each(name, given, shape),
    }
}

fn words(name: &str, given: &Bound<'_, PyAny>, shape: Shape) -> PyResult<Each<Vec<Vec<u32>>>> {
    let plain = |word: &Bound<'_, PyAny>| plain_ids(word, shape.tokens).filter(|ids| !ids.is_empty());
    match items(given).and_then(|words| words.iter().map(plain).collect()) {
        Some(words) => Ok(vec![Some(words)]),
        None => each(name, given, shape),
    }
}

/// The ids of a list or a tuple of integers, if the row has them all.
pub(super) fn plain_ids(given: &Bound<'_, PyAny>, tokens: usize) -> Option<Vec<u32>> {
    let plain = |id: &Bound<'_, PyAny>| id.is_exact_instance_of::<PyInt>().then(|| id.extract::<u32>().ok()).flatten();
    items(given)?.iter().map(|id| plain(id).filter(|&id| (id as usize) < tokens)).collect()
}

fn items<'py>(given: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    if let Ok(tuple) = given.cast_exact::<PyTuple>() {
        return Some(tuple.iter().collect());
    }
    given.cast_exact::<PyList>().ok().map(|list| list.iter().collect())
}
