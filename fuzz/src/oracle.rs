//! The right answers, computed as naively as possible: everything is sorted, and every mass is computed and added up.
//!
//! It is written from the formulas of DESIGN.md and shares no code with the kernels.

use toksample::context::Context;
use toksample::error::RowError;
use toksample::params::Params;
use toksample::recipe::Drawn;
use toksample::rng::Words;
use toksample::steps::{Step, Steps};

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
    for &(id, bias) in context.biases {
        if let Some(x) = row.get_mut(id as usize).filter(|_| bias == f32::NEG_INFINITY) {
            *x = bias;
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
    let repetition = params.repetition_penalty as f32;
    let frequency = params.frequency_penalty as f32;
    let presence = params.presence_penalty as f32;
    for edit in params.order.as_ref().and_then(Steps::edits).unwrap_or(&Step::EDITS) {
        match edit {
            Step::LogitBias => step(&|id, x| x + biases[id]),
            Step::RepetitionPenalty => step(&|id, x| match seen[id] {
                false => x,
                true if x > 0.0 => x / repetition,
                true => x * repetition,
            }),
            Step::FrequencyPenalty => step(&|id, x| if counts[id] > 0 { x - frequency * counts[id] as f32 } else { x }),
            Step::PresencePenalty => step(&|id, x| if counts[id] > 0 { x - presence } else { x }),
            _ => (), // the inputs have none of the others
        }
    }
    Ok(row)
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

/// The tokens that are kept, in the total order, and what the filters look at.
struct Kept {
    ids: Vec<usize>,
    logits: Vec<f32>,
    masses: Vec<u64>,
    surprises: Vec<u64>,
}

impl Kept {
    fn total(&self) -> u64 {
        self.masses.iter().sum()
    }

    /// The entropy in bits.
    fn entropy(&self) -> f64 {
        let moment: u128 = self.masses.iter().zip(&self.surprises).map(|(&m, &s)| u128::from(m) * u128::from(s)).sum();
        log2(self.total()) - f64::from(S) + moment as f64 / self.total() as f64 / f64::from(1 << 22)
    }

    /// How many tokens have at least this mass, rounded up. Those as heavy as the first one count in any case.
    fn at_least(&self, least: f64) -> usize {
        let least = (least.ceil() as u64).max(1).min(self.masses[0]);
        self.masses.iter().filter(|&&mass| mass >= least).count()
    }

    /// Keeps the tokens from one place to another.
    fn keep(&mut self, start: usize, stop: usize) {
        self.ids = self.ids[start..stop].to_vec();
        self.logits = self.logits[start..stop].to_vec();
        self.masses = self.masses[start..stop].to_vec();
        self.surprises = self.surprises[start..stop].to_vec();
    }

    /// Keeps the first tokens, as many as this or `fewest`.
    fn keep_first(&mut self, count: usize, fewest: u64) {
        let fewest = usize::try_from(fewest).unwrap_or(usize::MAX).max(1);
        self.keep(0, count.max(fewest).min(self.ids.len()));
    }
}

/// The row with the logits that smoothing makes.
fn smoothed(row: &[f32], params: &Params) -> Vec<f32> {
    let Params { smoothing_factor: factor, smoothing_curve: curve, .. } = *params;
    if factor == 0.0 {
        return row.to_vec();
    }
    let (a, b) = (((3.0 - curve) / 2.0 * factor) as f32, ((curve - 1.0) / 2.0 * factor) as f32);
    let maximum = maximum(row);
    let smooth = |x: f32| {
        let d = (maximum - x).min(f32::MAX);
        (maximum - (a + b * d) * d * d).max(f32::MIN)
    };
    row.iter().map(|&x| if x == f32::NEG_INFINITY { x } else { smooth(x) }).collect()
}

/// The temperature that follows the entropy of a row.
fn dynamic_temperature(row: &[f32], params: &Params) -> f64 {
    let Params { temperature, dynatemp_range: range, dynatemp_exponent: power, .. } = *params;
    let kept = all(row, 1.0);
    if range == 0.0 || kept.ids.len() == 1 {
        return temperature;
    }
    let whole = (1u64 << 53) as f64;
    let share = (kept.entropy() / log2(kept.ids.len() as u64) * whole).round_ties_even().clamp(0.0, whole);
    let raised = match share > 0.0 {
        true => exp2((power * (log2(share as u64) - 53.0)).max(-1000.0)),
        false => f64::from(u8::from(power == 0.0)),
    };
    let (low, high) = ((temperature - range).max(0.0), temperature + range);
    (low + (high - low) * raised).clamp(1e-30, 1e30)
}

/// All tokens that are not banned.
fn all(row: &[f32], temperature: f64) -> Kept {
    let mut ids = order(row);
    ids.retain(|&id| row[id] > f32::NEG_INFINITY);
    let (masses, surprises) = (masses(row, temperature), surprises(row, temperature));
    Kept {
        logits: ids.iter().map(|&id| row[id]).collect(),
        masses: ids.iter().map(|&id| masses[id]).collect(),
        surprises: ids.iter().map(|&id| surprises[id]).collect(),
        ids,
    }
}

/// The ids that the parameters keep, in the total order, and their masses. `word` is the random word of the filters.
pub fn survivors(row: &[f32], params: &Params, word: u64) -> (Vec<usize>, Vec<u64>) {
    if params.temperature == 0.0 {
        return (vec![order(row)[0]], vec![1 << S]);
    }
    let tokens = row.len() as u64;
    let row = smoothed(row, params);
    let mut kept = all(&row, dynamic_temperature(&row, params));
    let fewest = params.min_tokens_to_keep;
    let first_reaching = |masses: &[u64], need: u64| {
        let mut running = 0;
        let reaching = masses.iter().position(|mass| {
            running += mass;
            running >= need
        });
        reaching.expect("all tokens together have the total") + 1
    };
    if params.top_k > 0 {
        kept.keep_first(usize::try_from(params.top_k).unwrap_or(usize::MAX), fewest);
    }
    if params.top_p < 1.0 {
        kept.keep_first(first_reaching(&kept.masses, need(params.top_p, kept.total())), fewest);
    }
    let least = (params.min_p * kept.masses[0] as f64).ceil() as u64;
    kept.keep_first(kept.masses.iter().filter(|&&mass| mass >= least).count(), fewest);
    if params.typical_p < 1.0 {
        let (start, stop) = typical(&kept, params.typical_p, fewest);
        kept.keep(start, stop);
    }
    let total = |kept: &Kept| kept.total() as f64;
    if params.epsilon_cutoff > 0.0 {
        kept.keep_first(kept.at_least(params.epsilon_cutoff * total(&kept)), fewest);
    }
    if params.top_a > 0.0 {
        let first = kept.masses[0] as f64;
        kept.keep_first(kept.at_least(params.top_a * first * first / total(&kept)), fewest);
    }
    if params.eta_cutoff > 0.0 {
        let eta = params.eta_cutoff.min(params.eta_cutoff.sqrt() * exp2(-kept.entropy()));
        kept.keep_first(kept.at_least(eta * total(&kept)), fewest);
    }
    if params.top_n_sigma > 0.0 {
        let floor = f64::from(kept.logits[0]) - params.top_n_sigma * sigma(&kept.logits);
        kept.keep_first(kept.logits.iter().filter(|&&x| f64::from(x) >= floor).count(), fewest);
    }
    if params.tfs < 1.0 {
        kept.keep_first(before_tail(&kept.masses, params.tfs), fewest);
    }
    if params.top_h > 0.0 {
        kept.keep_first(top_h(&kept, params.top_h), fewest);
    }
    if u128::from(word) < (params.xtc_probability * (1u128 << 64) as f64) as u128 {
        let least = ((params.xtc_threshold * total(&kept)).ceil() as u64).max(1);
        let start = kept.masses.iter().filter(|&&mass| mass >= least).count().saturating_sub(1);
        if (kept.ids.len() - start) as u64 >= fewest.min(kept.ids.len() as u64) {
            kept.keep(start, kept.ids.len());
        }
    }
    let mu = params.mirostat_mu.unwrap_or(2.0 * params.mirostat_tau);
    if params.mirostat == 1 {
        kept.keep_first(zipf_count(&kept.surprises, mu, tokens), fewest);
    }
    if params.mirostat == 2 {
        kept.keep_first(kept.at_least(exp2(-mu.clamp(0.0, 1000.0)) * total(&kept)), fewest);
    }
    if params.adaptive_target >= 0.0 {
        let average = params.adaptive_average.unwrap_or(params.adaptive_target);
        reweigh(&mut kept, (2.0 * params.adaptive_target - average).clamp(0.0, 1.0));
    }
    (kept.ids, kept.masses)
}

/// Where the tokens start and stop that typical_p keeps.
fn typical(kept: &Kept, p: f64, fewest: u64) -> (usize, usize) {
    let total = kept.total();
    let moment: u128 = kept.masses.iter().zip(&kept.surprises).map(|(&m, &s)| u128::from(m) * u128::from(s)).sum();
    let mean = ((2 * moment + u128::from(total)) / (2 * u128::from(total))) as u64;
    let distance = |place: usize| kept.surprises[place].abs_diff(mean);
    let mut nearest: Vec<usize> = (0..kept.ids.len()).collect();
    nearest.sort_by_key(|&place| distance(place));
    let (mut running, need) = (0, need(p, total));
    let last = nearest.iter().position(|&place| {
        running += kept.masses[place];
        running >= need
    });
    let last = last.expect("all tokens together have the total") as u64;
    let last = last.max(fewest.clamp(1, kept.ids.len() as u64) - 1);
    let farthest = distance(nearest[last as usize]);
    let near: Vec<usize> = (0..kept.ids.len()).filter(|&place| distance(place) <= farthest).collect();
    (near[0], near[near.len() - 1] + 1)
}

/// The standard deviation of sorted logits.
fn sigma(logits: &[f32]) -> f64 {
    let distance = |x: f32| ((logits[0] - x).min(1024.0) * 1024.0).round_ties_even() as u128;
    let count = logits.len() as u128;
    let (sum, squares) = logits.iter().fold((0, 0), |(sum, squares), &x| {
        let d = distance(x);
        (sum + d, squares + d * d)
    });
    ((squares * count - sum * sum) as f64).sqrt() / count as f64 / 1024.0
}

/// How many tokens come before the tail.
fn before_tail(masses: &[u64], z: f64) -> usize {
    if masses.len() <= 3 {
        return masses.len();
    }
    let mut running = 0;
    let bends: Vec<u64> = (masses.windows(3))
        .map(|three| {
            running += (three[0] as i64 - 2 * three[1] as i64 + three[2] as i64).unsigned_abs();
            running
        })
        .collect();
    let share = (z * running as f64).floor() as u64;
    bends[1..].iter().position(|&bend| bend > share).map_or(masses.len(), |place| place + 1)
}

/// How many tokens top_h keeps.
fn top_h(kept: &Kept, h: f64) -> usize {
    let count = kept.ids.len().min(100);
    let (masses, surprises) = (&kept.masses[..count], &kept.surprises[..count]);
    let base = ((log2(masses.iter().sum()) - f64::from(S)) * f64::from(1 << 22)).round_ties_even() as i64;
    let mut running = 0;
    let parts: Vec<u128> = (masses.iter().zip(surprises))
        .map(|(&mass, &surprise)| {
            running += u128::from(mass) * (surprise as i64 + base).max(0) as u128;
            running
        })
        .collect();
    parts.iter().filter(|&&part| part as f64 <= h * running as f64).count().max(1)
}

/// How many tokens the first version of mirostat keeps.
fn zipf_count(surprises: &[u64], mu: f64, tokens: u64) -> usize {
    if surprises.len() == 1 {
        return 1;
    }
    let (mut products, mut squares) = (0.0, 0.0);
    for place in 1..surprises.len().min(100) {
        let ratio = log2(place as u64 + 1) - log2(place as u64);
        products += ratio * ((surprises[place] - surprises[place - 1]) as f64 / f64::from(1 << 22));
        squares += ratio * ratio;
    }
    let s = f64::max(products / squares, 1.0 / (1u64 << 40) as f64);
    let excess = s - 1.0;
    let factor = match excess.abs() < 1.0 / f64::from(1 << 20) {
        true => 1.0 / ln(tokens),
        false => excess / (1.0 - exp2((-excess * log2(tokens)).clamp(-1000.0, 1000.0))),
    };
    let log2_of_factor = log2((factor * (1u64 << 56) as f64).round_ties_even() as u64) - 56.0;
    exp2(((mu + log2_of_factor) / s).clamp(0.0, 62.0)) as usize
}

/// Gives the tokens the masses of adaptive-p.
fn reweigh(kept: &mut Kept, center: f64) {
    let (total, grid) = (kept.total() as f64, f64::from(1 << 24));
    let fall = |mass: u64| {
        let d = ((mass as f64 / total * grid).round_ties_even() / grid - center).abs() / 0.3;
        10.0 * d * d / (1.0 + d) * std::f64::consts::LOG2_E
    };
    let falls: Vec<f64> = kept.masses.iter().map(|&mass| fall(mass)).collect();
    let least = falls.iter().copied().fold(f64::INFINITY, f64::min);
    let weight = |fall: f64| (exp2(-(fall - least)) * (1u64 << S) as f64).round_ties_even() as u64;
    kept.masses = falls.into_iter().map(weight).collect();
}

/// The token that this word draws, and its interval of the mass line.
pub fn sample(row: &[f32], params: &Params, words: Words) -> Drawn {
    let (ids, masses) = survivors(row, params, words.filter);
    let total: u64 = masses.iter().sum();
    let target = ((u128::from(words.draw) * u128::from(total)) >> 64) as u64;
    let mut by_id: Vec<(usize, u64)> = ids.into_iter().zip(masses).collect();
    by_id.sort_unstable();
    let mut start = 0;
    for (token, mass) in by_id {
        if start + mass > target {
            return Drawn::new(token, total, start, mass);
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
    let (e, ln_m) = split(w);
    e * std::f64::consts::LN_2 + ln_m
}

/// The binary logarithm of an integer.
fn log2(w: u64) -> f64 {
    let (e, ln_m) = split(w);
    e + ln_m * std::f64::consts::LOG2_E
}

/// e and ln m.
fn split(w: u64) -> (f64, f64) {
    let w = w as f64;
    let e = (w.to_bits() >> 52) as i32 - 1023;
    let m = w / (1u64 << e) as f64;
    let r = (m - 1.0) / (m + 1.0);
    let series = (0..17).rev().fold(0.0, |series, term| series * (r * r) + 1.0 / f64::from(2 * term + 1));
    (f64::from(e), 2.0 * r * series)
}

/// 2**x, by 14 terms of a series: with x = n + f and n the nearest integer, 2**x = 2**n exp(f ln 2).
fn exp2(x: f64) -> f64 {
    let n = x.round_ties_even();
    let y = (x - n) * std::f64::consts::LN_2;
    let series = (1..15).rev().fold(1.0, |series, term| 1.0 + y / f64::from(term) * series);
    series * f64::from_bits(((1023 + n as i64) as u64) << 52)
}
