//! Smoothing, or quadratic sampling: lowers each logit by a polynomial of its distance from the largest one, so that the
//! tokens near the top become more alike and those far below less likely.
//!
//! ```text
//! a   = float32((3 - curve) / 2 * factor);  b = float32((curve - 1) / 2 * factor)
//! d   = np.minimum(max(row) - row, float32 max)
//! row = np.maximum(max(row) - (a + b * d) * d * d, -float32 max)      # float32; a banned token stays banned
//! ```
//!
//! From kalomaze, in text-generation-webui (2024).
//!
//! Edge rules: the curve is in [1, 3], so that neither a nor b is negative, and each operation keeps the order of the logits.
//! Some that differ may become equal. A factor of 0 is off.

use crate::params::Params;

/// True if the logits are to be smoothed. Their order stays, so the greedy answer is that of the logits as they were.
#[inline(always)]
pub(crate) fn is_on(params: &Params) -> bool {
    params.smoothing_factor > 0.0 && params.temperature != 0.0
}

/// Returns the function that smoothes a logit of a row with this maximum.
#[inline(always)]
pub(crate) fn smooth(params: &Params, maximum: f32) -> impl Fn(f32) -> f32 {
    let Params { smoothing_factor: factor, smoothing_curve: curve, .. } = *params;
    let (a, b) = (((3.0 - curve) / 2.0 * factor) as f32, ((curve - 1.0) / 2.0 * factor) as f32);
    move |x| {
        let distance = maximum - x;
        let d = if distance < f32::MAX { distance } else { f32::MAX };
        let smoothed = maximum - (a + b * d) * d * d;
        let smoothed = if smoothed > f32::MIN { smoothed } else { f32::MIN };
        if x == f32::NEG_INFINITY { x } else { smoothed }
    }
}
