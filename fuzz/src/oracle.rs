//! The right answers, computed as naively as possible: everything is sorted, and every mass is computed and added up.
//!
//! It is written from the formulas of DESIGN.md and shares no code with the kernels.

use toksample::context::Context;
use toksample::error::RowError;
use toksample::params::Params;
use toksample::recipe::Drawn;

/// The mass of the most probable token is 2**S.
const S: i32 = 41;

/// Returns the row with all changes, or the error if it has no answer.
pub fn edited(row: &[f32], params: &Params, context: &Context<'_>) -> Result<Vec<f32>, RowError> {
    let mut row = row.to_vec();
    if let Some(words) = context.bitmask {
        for (id, x) in row.iter_mut().enumerate() {
            if words.get(id / 32).is_none_or(|word| word >> (id % 32) & 1 == 0) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
    if let Some(id) = row.iter().position(|x| x.is_nan() || *x == f32::INFINITY) {
        return Err(RowError::NotFinite { id, value: row[id] });
    }
    let is_empty = |row: &[f32]| row.iter().all(|&x| x == f32::NEG_INFINITY);
    if is_empty(&row) {
        return Err(RowError::Empty);
    }
    let history: Vec<(u32, bool)> = (context.prompt_ids.iter().map(|&id| (id, false)))
        .chain(context.output_ids.iter().map(|&id| (id, true)))
        .collect();
    let last = match params.penalty_window {
        0 => history.len(),
        window => history.len().min(usize::try_from(window).unwrap_or(usize::MAX)),
    };
    let (mut seen, mut counts) = (vec![false; row.len()], vec![0u32; row.len()]);
    for &(id, is_output) in &history[history.len() - last..] {
        if (id as usize) < row.len() {
            seen[id as usize] = true;
            counts[id as usize] += u32::from(is_output);
        }
    }
    // Each step goes over the whole row. Banned tokens stay banned, and all other logits stay finite.
    let mut step = |new: &dyn Fn(usize, f32) -> f32| {
        for (id, x) in row.iter_mut().enumerate().filter(|(_, x)| **x != f32::NEG_INFINITY) {
            *x = new(id, *x).clamp(f32::MIN, f32::MAX);
        }
    };
    let mut biases = vec![0.0; seen.len()];
    context.biases.iter().filter(|(id, _)| (*id as usize) < seen.len()).for_each(|&(id, b)| biases[id as usize] = b);
    step(&|id, x| if biases[id] == f32::NEG_INFINITY { x } else { x + biases[id] });
    let penalty = params.repetition_penalty as f32;
    step(&|id, x| match seen[id] {
        false => x,
        true if x > 0.0 => x / penalty,
        true => x * penalty,
    });
    let penalty = params.frequency_penalty as f32;
    step(&|id, x| if counts[id] > 0 { x - penalty * counts[id] as f32 } else { x });
    let penalty = params.presence_penalty as f32;
    step(&|id, x| if counts[id] > 0 { x - penalty } else { x });
    for (x, bias) in row.iter_mut().zip(biases) {
        if bias == f32::NEG_INFINITY {
            *x = bias;
        }
    }
    if is_empty(&row) { Err(RowError::Empty) } else { Ok(row) }
}

/// All ids in the total order: logit descending, then id ascending.
pub fn order(row: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..row.len()).collect();
    ids.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("there is no NaN in the row")); // a stable sort
    ids
}

fn maximum(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// 2**n as a float32, if that is a normal number.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// The base-2 logarithm of the weight of each token, shifted so that the most probable token gets 4.
fn exponents(row: &[f32], temperature: f64) -> Vec<f32> {
    let (maximum, log2_e) = (maximum(row), std::f64::consts::LOG2_E);
    let scale = ((log2_e / temperature) as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
    row.iter().map(|&x| ((x - maximum) * scale + 4.0).max(-60.0)).collect()
}

/// The surprise of each token, in units of 2**-22 bits.
fn surprises(row: &[f32], temperature: f64) -> Vec<u64> {
    let surprise = |t: f32| (4.0 - f64::from(t)) * f64::from(1 << 22);
    let surprises: Vec<f64> = exponents(row, temperature).into_iter().map(surprise).collect();
    assert!(surprises.iter().all(|x| x.fract() == 0.0 && (0.0..=f64::from(1 << 28)).contains(x)));
    surprises.into_iter().map(|x| x as u64).collect()
}

/// The mass of each token before it is rounded to an integer.
#[allow(clippy::approx_constant)] // a coefficient is near ln 2, and is not ln 2
pub fn weights(row: &[f32], temperature: f64) -> Vec<f32> {
    let weight = |t: f32| {
        let n = t.round_ties_even();
        let f = t - n;
        let p = 0.001_326_472_7_f32 * f + 0.009_671_513;
        let p = p * f + 0.055_507_336;
        let p = p * f + 0.240_222_42;
        let p = p * f + 0.693_147;
        let p = p * f + 1.0;
        p * power_of_two(n as i32 - 4 + S)
    };
    exponents(row, temperature).into_iter().map(weight).collect()
}

/// The mass of each token.
pub fn masses(row: &[f32], temperature: f64) -> Vec<u64> {
    weights(row, temperature).iter().map(|&weight| f64::from(weight).round_ties_even() as u64).collect()
}

/// The least mass that makes up this share of the total.
fn need(share: f64, total: u64) -> u64 {
    ((share * total as f64).ceil() as u64).max(1).min(total)
}

/// The ids that the parameters keep, in the total order, and their masses.
pub fn survivors(row: &[f32], params: &Params) -> (Vec<usize>, Vec<u64>) {
    let mut ids = order(row);
    if params.temperature == 0.0 {
        return (vec![ids[0]], vec![1 << S]);
    }
    ids.retain(|&id| row[id] > f32::NEG_INFINITY);
    let of = masses(row, params.temperature);
    if params.top_k > 0 && params.top_k < ids.len() as u64 {
        ids.truncate(params.top_k as usize);
    }
    if params.top_p < 1.0 {
        let total: u64 = ids.iter().map(|&id| of[id]).sum();
        let need = need(params.top_p, total);
        let mut running = 0;
        let last = ids.iter().position(|&id| {
            running += of[id];
            running >= need
        });
        ids.truncate(last.expect("all tokens together have the total") + 1);
    }
    let least = (params.min_p * of[ids[0]] as f64).ceil() as u64;
    ids.retain(|&id| of[id] >= least);
    if params.typical_p < 1.0 {
        let surprises = surprises(row, params.temperature);
        let total: u64 = ids.iter().map(|&id| of[id]).sum();
        let moment: u128 = ids.iter().map(|&id| u128::from(of[id]) * u128::from(surprises[id])).sum();
        let mean = ((2 * moment + u128::from(total)) / (2 * u128::from(total))) as u64;
        let need = need(params.typical_p, total);
        let mut nearest = ids.clone();
        nearest.sort_by_key(|&id| surprises[id].abs_diff(mean));
        let mut running = 0;
        let last = nearest.into_iter().find(|&id| {
            running += of[id];
            running >= need
        });
        let farthest = surprises[last.expect("all tokens together have the total")].abs_diff(mean);
        ids.retain(|&id| surprises[id].abs_diff(mean) <= farthest);
    }
    let masses = ids.iter().map(|&id| of[id]).collect();
    (ids, masses)
}

/// The token that this word draws, and its interval of the mass line.
pub fn sample(row: &[f32], params: &Params, word: u64) -> Drawn {
    let (ids, masses) = survivors(row, params);
    let total: u64 = masses.iter().sum();
    let target = ((u128::from(word) * u128::from(total)) >> 64) as u64;
    let mut by_id: Vec<(usize, u64)> = ids.into_iter().zip(masses).collect();
    by_id.sort_unstable();
    let mut start = 0;
    for (token, mass) in by_id {
        if start + mass > target {
            return Drawn { token, total, start, mass };
        }
        start += mass;
    }
    unreachable!("the target is below the total")
}

/// The probability of each token.
pub fn softmax(row: &[f32], temperature: f64) -> Vec<f32> {
    if temperature == 0.0 {
        let first = order(row)[0];
        return (0..row.len()).map(|id| if id == first { 1.0 } else { 0.0 }).collect();
    }
    let total: u64 = masses(row, temperature).iter().sum();
    let inverse = (1.0 / total as f64) as f32;
    let negligible = power_of_two(S - 64);
    weights(row, temperature).iter().map(|&weight| if weight > negligible { weight * inverse } else { 0.0 }).collect()
}

/// The natural logarithm of each probability.
pub fn log_softmax(row: &[f32], temperature: f64) -> Vec<f32> {
    if temperature == 0.0 {
        let first = order(row)[0];
        return (0..row.len()).map(|id| if id == first { 0.0 } else { f32::NEG_INFINITY }).collect();
    }
    let total: u64 = masses(row, temperature).iter().sum();
    let log_total = ln(total) - f64::from(S) * std::f64::consts::LN_2;
    let (maximum, inverse) = (f64::from(maximum(row)), (1.0 / temperature).min(f64::MAX));
    row.iter().map(|&x| ((f64::from(x) - maximum) * inverse - log_total) as f32).collect()
}

/// The natural logarithm of an integer, by 17 terms of a series: with w = m * 2**e and m in [1, 2),
/// ln w = e ln 2 + 2 artanh((m - 1) / (m + 1)).
fn ln(w: u64) -> f64 {
    let w = w as f64;
    let e = (w.to_bits() >> 52) as i32 - 1023;
    let m = w / (1u64 << e) as f64;
    let r = (m - 1.0) / (m + 1.0);
    let series = (0..17).rev().fold(0.0, |series, term| series * (r * r) + 1.0 / f64::from(2 * term + 1));
    f64::from(e) * std::f64::consts::LN_2 + 2.0 * r * series
}
