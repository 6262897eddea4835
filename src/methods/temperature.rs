//! Temperature: divides the logits, so that likely tokens become more likely below 1 and less likely above. The temperature
//! may follow the entropy (dynamic temperature).
//!
//! ```text
//! mass = as in kernels/mass.rs, relative to the first token that is kept
//!
//! share = clip(rint(H / log2(len(mass)) * 2**53), 0, 2**53)   # H is the entropy of what was kept before
//! low   = max(0, temperature - range)
//! T     = clip(low + (temperature + range - low) * (share / 2**53) ** exponent, 1e-30, 1e30)    # in float64
//! ```
//!
//! The dynamic temperature is from kalomaze's fork of KoboldCpp (2023), and `temp_ext` of llama.cpp.
//!
//! Edge rules: at temperature 0 no step is applied, because the answer is the argmax of the row. With a single token, which
//! has no entropy, the temperature stays as it is. A range of 0 is off.

use crate::error::RowError;
use crate::kernels::series::{exp2, log2};
use crate::params::Params;
use crate::row::Row;
use crate::search::State;

pub(super) fn apply<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<(), RowError> {
    let temperature = if params.dynatemp_range > 0.0 { dynamic(params, state)? } else { params.temperature };
    state.set_temperature(temperature)
}

/// Returns the temperature that follows the entropy of the tokens that are kept.
#[inline(never)]
fn dynamic<R: Row>(params: &Params, state: &mut State<'_, R>) -> Result<f64, RowError> {
    const UNIT: f64 = (1u64 << 53) as f64;
    let Params { temperature, dynatemp_range: range, dynatemp_exponent: exponent, .. } = *params;
    let moments = state.moments(true);
    if moments.count <= 1 {
        return Ok(temperature);
    }
    let entropy = moments.entropy().ok_or(RowError::Changed)?; // the most probable token always has a mass
    let share = (entropy / log2(moments.count as u64) * UNIT).round_ties_even().clamp(0.0, UNIT) as u64;
    let raised = match share {
        0 => f64::from(exponent == 0.0),
        share => exp2((exponent * (log2(share) - 53.0)).max(-1000.0)),
    };
    let (low, high) = ((temperature - range).max(0.0), temperature + range);
    Ok((low + (high - low) * raised).clamp(1e-30, 1e30))
}
