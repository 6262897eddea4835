//! The filters, one file for each. A filter sees only the `State` (`search.rs`), and none knows another.

mod min_p;
mod top_k;
mod top_p;

use crate::error::RowError;
use crate::isa::Vector;
use crate::kernels::mass::Mass;
use crate::logit::Logit;
use crate::params::Params;
use crate::row::Row;
use crate::search::{Kept, Search, State};

/// Applies the filters in their order, at a temperature that is not 0. Returns None if every token is kept.
#[inline(always)]
pub(crate) fn keep<I: Vector, T: Logit>(
    row: &Row<'_, I, T>,
    mass: Mass,
    params: &Params,
    search: &mut Search,
) -> Result<Option<Kept>, RowError> {
    let mut state = State::all(*row, mass, search);
    top_k::apply(params.top_k, &mut state)?;
    top_p::apply(params.top_p, &mut state)?;
    min_p::apply(params.min_p, &mut state);
    Ok(state.kept())
}
