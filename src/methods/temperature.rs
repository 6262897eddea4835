//! Temperature: divides the logits, so that likely tokens become more likely below 1 and less likely above.
//!
//! ```text
//! mass = as in kernels/mass.rs, relative to the first token that is kept
//! ```
//!
//! Edge rule: at temperature 0 no step is applied, because the answer is the argmax of the row.

use crate::error::RowError;
use crate::row::Row;
use crate::search::State;

pub(super) fn apply<R: Row>(temperature: f64, state: &mut State<'_, R>) -> Result<(), RowError> {
    state.set_temperature(temperature)
}
