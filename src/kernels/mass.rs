//! The exact mass: a token's probability as an integer.
//!
//! ```text
//! scale  = float32(log2(e) / temperature)                    # divided in float64, kept in [2**-126, float32 max]
//! t      = max((x - max(row)) * scale + 4, -60)              # float32
//! n      = rint(t);  f = t - n                               # f in [-0.5, 0.5]
//! weight = (1 + f*(C1 + f*(C2 + f*(C3 + f*(C4 + f*C5))))) * 2**(n - 4 + S)
//! mass   = rint(weight)                                      # an integer in [0, 2**S], S = 41
//! ```
//!
//! Every operation is in float32 and rounded once, and none is fused. So numpy, SSE2, AVX2, AVX-512 and NEON compute the same
//! integer. Sums of masses are 64-bit integers, which do not depend on the order of the additions.
//!
//! Why the `+ 4`: it puts `t` on a grid of 2**-22 or coarser, and on that grid the polynomial never decreases (tests check all
//! of its 2**22 + 1 points). So the mass never decreases when the logit increases. A filter that keeps the heaviest tokens
//! therefore keeps a prefix of the total order, and one key says which prefix it is.
//!
//! Why S = 41: the masses of a row of 2**22 tokens sum to at most 2**63, and rounding moves the distribution by at most
//! 2**-20.
//!
//! Edge rules: the row's maximum has a mass of exactly 2**S, and a banned token (-inf) has a mass of 0.
//!
//! How it is fast: splitting an exponent into an integer and a fraction takes two or four operations, and the coefficients
//! already contain the power of two (`lanes::powers`). Where it is enough to know the mass of a block within bounds, the bounds
//! come from fused operations and a float32 sum.
//! Weights far below the maximum are summed as 32-bit integers.

use super::order;
use crate::isa::Vector;
use crate::lanes::{self, BLOCK, LIGHT, ROUND32, ROUND64, Sum, max, sum_of_rounded};
use crate::row::{Buffer, Row};

/// The mass of the row's maximum is 2**S.
pub const S: u32 = 41;

/// The most tokens that a row may have. With this limit no sum of masses reaches 2**64.
pub const MAX_TOKENS: usize = 1 << 22;

const SHIFT: f32 = 4.0;
const LOWEST: f32 = -60.0;
/// 2**(S - SHIFT), by which every coefficient is multiplied.
const UNIT: f32 = (1u64 << (S - 4)) as f32;
/// The coefficients of 1 + C[0] f + C[1] f**2 …, which, computed in float32, is within 1.9e-7 of 2**f (relative) for |f| <=
/// 0.5.
#[allow(clippy::approx_constant)] // the first coefficient is close to ln 2, but is not ln 2
const C: [f32; 5] = [0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];
const SCALED: [f32; 5] = [C[0] * UNIT, C[1] * UNIT, C[2] * UNIT, C[3] * UNIT, C[4] * UNIT];

/// The weight of a banned token, which is also the smallest weight.
pub(crate) const LEAST_WEIGHT: f32 = 1.0 / (1 << 23) as f32; // 2**(LOWEST - SHIFT + S)

/// Computes the masses of one row at one temperature.
#[derive(Clone, Copy, Debug)]
pub struct Mass {
    maximum: f32,
    scale: f32,
    temperature: f64,
}

/// Computes 2**fraction in units of a mass, for a fraction in [-0.5, 0.5].
#[inline(always)]
fn power_of_fraction(fraction: f32, mul_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut p = SCALED[4];
    for c in [SCALED[3], SCALED[2], SCALED[1], SCALED[0], UNIT] {
        p = mul_add(p, fraction, c);
    }
    p
}

impl Mass {
    /// Prepares for a row with this maximum, which must be finite, at this temperature, which must be above 0.
    #[inline(always)]
    pub fn new(maximum: f32, temperature: f64) -> Mass {
        let scale = (std::f64::consts::LOG2_E / temperature) as f32;
        Mass { maximum, scale: scale.clamp(f32::MIN_POSITIVE, f32::MAX), temperature }
    }

    /// Returns the logit that has the mass 2**S.
    #[inline(always)]
    pub fn maximum(self) -> f32 {
        self.maximum
    }

    /// Returns the temperature.
    #[inline(always)]
    pub fn temperature(self) -> f64 {
        self.temperature
    }

    /// Returns the mass before rounding. For a banned token it is less than one half, but not 0.
    #[inline(always)]
    pub(crate) fn weight(self, x: f32) -> f32 {
        self.weight_by(x, |a, b, c| a * b + c)
    }

    /// Returns the exponent of a weight, shifted to the grid of 2**-22 on which the mass never decreases.
    #[inline(always)]
    fn exponent(self, x: f32) -> f32 {
        max(LOWEST, self.free_exponent(x))
    }

    /// Returns the exponent before it is limited to LOWEST.
    #[inline(always)]
    fn free_exponent(self, x: f32) -> f32 {
        (x - self.maximum) * self.scale + SHIFT
    }

    /// Returns how surprising a token is, relative to the most probable one: see `surprise.rs`.
    #[inline(always)]
    pub fn surprise(self, x: f32) -> u32 {
        // The integer and the fraction are converted apart, by adding a number that leaves an integer in the low bits: the
        // conversion of a float32, which must handle NaN, takes several times as long.
        const GRID: f32 = (1u32 << 22) as f32;
        let integer = |rounded: f32| rounded.to_bits().wrapping_sub(ROUND32.to_bits());
        let t = self.exponent(x);
        let rounded = t + ROUND32;
        let fraction = integer((t - (rounded - ROUND32)) * GRID + ROUND32);
        (SHIFT as u32).wrapping_sub(integer(rounded)).wrapping_shl(22).wrapping_sub(fraction)
    }

    /// Returns the weight and the surprise of each token of a block. The surprises are integers in float32.
    ///
    /// A float32 can hold each of them. Let z be the exponent before 4 is added. If z > -4, the surprise is less than 2**24.
    /// Otherwise z + 4 is a multiple of the last bit of z, and no farther from 0, so it is not rounded, and the surprise is
    /// -z * 2**22.
    #[inline(always)]
    pub(crate) fn weights_and_surprises<I: Vector>(self, block: &[f32; BLOCK]) -> ([f32; BLOCK], [f32; BLOCK]) {
        const GRID: f32 = (1u32 << 22) as f32;
        let (mut exponents, mut surprises) = ([0f32; BLOCK], [0f32; BLOCK]);
        for ((exponent, surprise), x) in exponents.iter_mut().zip(&mut surprises).zip(block) {
            *exponent = self.exponent(*x);
            *surprise = I::nearly_mul_add(*exponent, -GRID, SHIFT * GRID); // fused or not, nothing is rounded
        }
        let weights = I::powers(&exponents, |t| t, LOWEST, |fraction| power_of_fraction(fraction, |a, b, c| a * b + c));
        (weights, surprises)
    }

    #[inline(always)]
    fn weight_by(self, x: f32, mul_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
        let (n, fraction) = lanes::split(self.exponent(x));
        lanes::times_power(power_of_fraction(fraction, mul_add), n)
    }

    /// Returns the weights of a block.
    #[inline(always)]
    fn weights_by<I: Vector>(self, block: &[f32; BLOCK], mul_add: impl Fn(f32, f32, f32) -> f32) -> [f32; BLOCK] {
        I::powers(block, |x| self.free_exponent(x), LOWEST, |fraction| power_of_fraction(fraction, &mul_add))
    }

    /// Returns the mass of a token with logit `x`.
    #[inline(always)]
    pub fn of(self, x: f32) -> u64 {
        Mass::rounded(self.weight(x))
    }

    /// Rounds a weight to the mass.
    #[inline(always)]
    pub(crate) fn rounded(weight: f32) -> u64 {
        (f64::from(weight) + ROUND64).to_bits().wrapping_sub(ROUND64.to_bits())
    }

    /// Returns a logit such that every token below it has a mass below `least`.
    #[inline(never)]
    pub(crate) fn floor(self, least: u64) -> f32 {
        // This estimate is a little too low. It is lowered further until it is certain.
        let power = (least as f64).log2() - f64::from(S);
        let mut x = (f64::from(self.maximum) + (power - 1e-5) / f64::from(self.scale)) as f32;
        let mut step = (x.abs().max(self.maximum.abs()) * f32::EPSILON).max(f32::MIN_POSITIVE);
        while x > f32::NEG_INFINITY && self.of(x) >= least {
            x -= step;
            step *= 2.0;
        }
        x.max(f32::MIN)
    }

    /// Returns the smallest logit, no larger than the maximum, with a mass of at least `least`, which must be in [1, 2**S].
    #[inline(never)]
    pub fn least_logit(self, least: u64) -> f32 {
        // Every logit below `low` is too light, and no logit from `high` on is.
        let mut low = order::ascending(self.floor(least));
        let (mut high, mut step) = (low, 16);
        while self.of(order::from_ascending(high)) < least {
            low = high + 1;
            high = high.saturating_add(step).min(order::ascending(self.maximum));
            step = step.saturating_mul(4);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.of(order::from_ascending(middle)) < least {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        order::from_ascending(high)
    }

    /// Returns the smallest logit whose surprise is at most `most`. The surprise never increases with the logit.
    #[inline(never)]
    pub fn logit_of_surprise(self, most: u32) -> f32 {
        self.least_where(|x| self.surprise(x) <= most)
    }

    /// Returns the smallest logit with a mass for which something is true, or None if it is not true for 2**S. It must be true
    /// for each mass that is larger than one for which it is true.
    #[inline(never)]
    pub fn least_logit_where(self, is_true: impl Fn(u64) -> bool) -> Option<f32> {
        is_true(1 << S).then(|| self.least_where(|x| is_true(self.of(x))))
    }

    /// Returns the smallest finite logit for which something is true, if it is true for the maximum and all logits between.
    fn least_where(self, is_true: impl Fn(f32) -> bool) -> f32 {
        let (mut low, mut high) = (order::ascending(f32::MIN), order::ascending(self.maximum));
        while low < high {
            let middle = low + (high - low) / 2;
            if is_true(order::from_ascending(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        order::from_ascending(high)
    }

    /// Returns bounds of the mass of a block, within 2**-19 of it, at two thirds of the cost of counting it.
    ///
    /// The weights are computed with fused operations where the CPU has them, and summed as float32. The relative error of a
    /// weight is then at most 2**-22 (tests try every value of `f`). That of a sum of 64 positive numbers, added in halves, is
    /// at most 6 * 2**-24. The rounding of the masses adds one half for each token.
    #[inline(always)]
    pub fn bounds_of_block<I: Vector>(self, block: &[f32; BLOCK]) -> (u64, u64) {
        let weights = self.weights_by::<I>(block, I::nearly_mul_add);
        let sum = Mass::rounded(I::nearly_sum(|place| weights[place]));
        let error = (sum >> 20) + BLOCK as u64;
        (sum.saturating_sub(error), sum + error)
    }

    /// Returns bounds of the mass of a block, within a fifteenth of it, at a third of the cost of the tighter bounds.
    ///
    /// The exponent with its fraction, in fixed point, becomes the bits of a float32. That makes a straight line of 2**f
    /// between two powers of two, which is above 2**f by at most 6.15 %. The exponent is rounded to 2**-15, which with all
    /// other roundings moves the sum by less than 2**-14.
    #[inline(always)]
    pub fn rough_bounds_of_block<I: Vector>(self, block: &[f32; BLOCK]) -> (u64, u64) {
        const ROUND: f32 = 384.0; // the last bit of a sum with this is 2**-15
        const BITS: u32 = 8; // by which the integer must be shifted to become an exponent
        const BIAS: u32 = (((127 + S) << 23) - (4 << 23)).wrapping_sub(ROUND.to_bits() << BITS);
        let sum = Mass::rounded(I::nearly_sum(|place| {
            let t = I::nearly_mul_add(block[place] - self.maximum, self.scale, ROUND + SHIFT);
            let t = if t > ROUND + LOWEST { t } else { ROUND + LOWEST };
            f32::from_bits((t.to_bits() << BITS).wrapping_add(BIAS))
        }));
        let rounded = BLOCK as u64;
        ((sum - (sum >> 4)).saturating_sub(rounded), sum + (sum >> 14) + rounded)
    }

    /// Returns the weights of a block.
    #[inline(always)]
    pub(crate) fn weights<I: Vector>(self, block: &[f32; BLOCK]) -> [f32; BLOCK] {
        self.weights_by::<I>(block, |a, b, c| a * b + c)
    }

    /// Returns a logit such that no token up to it has a weight above 2**LIGHT.
    #[inline(always)]
    pub(crate) fn light(self) -> f32 {
        self.logit_of_at_most(LIGHT)
    }

    /// Returns a logit such that no token up to it has a weight above 2**power.
    ///
    /// It is found once for a row. The CPU can compare the maximum of a block with it long before a weight is known, so a
    /// mispredicted branch loses less work.
    #[inline(always)]
    pub(crate) fn logit_of_at_most(self, power: u32) -> f32 {
        // A little less than what is looked for, so that the roundings of x and of the weight do not matter.
        let x = (f64::from(self.maximum) - (f64::from(S - power) + 1e-5) / f64::from(self.scale)) as f32;
        let x = x - 2.0 * f32::EPSILON * x.abs().max(self.maximum.abs());
        if self.weight(x) <= (1u64 << power) as f32 { x } else { f32::NEG_INFINITY }
    }

    /// Returns the mass of a block, or of a part of it, from its weights.
    #[inline(always)]
    pub(crate) fn of_weights<I: Vector>(weights: &[f32; BLOCK], is_light: bool) -> u64 {
        if is_light { I::sum_of_light(weights) } else { sum_of_rounded(weights) }
    }

    /// Returns the mass of a whole row.
    #[inline(always)]
    pub(crate) fn of_row<R: Row>(self, row: &R) -> u64 {
        R::Isa::run(move || {
            let (mut sum, light) = (Sum::default(), self.light());
            let mut buffer = Buffer::new();
            for (index, &maximum) in row.maxima().iter().enumerate() {
                R::Isa::add(&self.weights::<R::Isa>(row.block(index, &mut buffer)), maximum <= light, &mut sum);
            }
            sum.total()
        })
    }

    /// Returns the mass of each token of a block.
    #[inline(always)]
    pub(crate) fn of_each(self, block: &[f32; BLOCK]) -> [u64; BLOCK] {
        let mut masses = [0; BLOCK];
        for (mass, x) in masses.iter_mut().zip(block) {
            *mass = self.of(*x);
        }
        masses
    }

    /// Fills `masses` with the masses of the logits.
    #[inline(always)]
    pub fn of_all(self, logits: impl ExactSizeIterator<Item = f32>, masses: &mut Vec<u64>) {
        // `extend` is not used, because it is not inlined and would be compiled for the baseline.
        masses.resize(logits.len(), 0);
        for (mass, x) in masses.iter_mut().zip(logits) {
            *mass = self.of(x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;

    #[test]
    fn the_maximum_has_2_to_the_s_and_a_banned_token_nothing() {
        for temperature in [1e-320, 1e-10, 0.01, 1.0, 100.0, 1e30, 1e300] {
            let mass = Mass::new(3.5, temperature);
            assert_eq!(mass.of(3.5), 1 << S, "temperature {temperature}");
            assert_eq!(mass.of(f32::NEG_INFINITY), 0, "temperature {temperature}");
        }
    }

    /// Tries every value of `t` from -44 to 0 on the grid that `+ 4` leaves. `t` on the grid never decreases when the logit
    /// increases, so this proves that the mass never does either.
    #[test]
    fn masses_never_decrease_with_the_logit() {
        let mass = Mass { maximum: 0.0, scale: 1.0, temperature: std::f64::consts::LOG2_E };
        let mut last = 0;
        for step in (0..=44 << 22u32).rev() {
            let next = mass.of(-(step as f32) / (1 << 22) as f32);
            assert!(next >= last, "mass decreases at t = -{step} / 2**22");
            last = next;
        }
        assert_eq!(last, 1 << S);
    }

    /// Tries every value of `f`. The power of two in a weight does not change its relative error.
    #[test]
    fn a_fused_weight_is_within_2_to_the_minus_22_of_itself() {
        let mass = Mass { maximum: 0.0, scale: 1.0, temperature: std::f64::consts::LOG2_E };
        for step in 0..=1u32 << 22 {
            let x = -(step as f32) / (1 << 22) as f32;
            let (exact, fused) = (mass.weight(x), mass.weight_by(x, f32::mul_add));
            assert!((f64::from(fused) / f64::from(exact) - 1.0).abs() <= 1.0 / f64::from(1 << 22), "t = {x}");
        }
    }

    #[test]
    fn the_bounds_of_a_block_hold_its_mass() {
        let mass = Mass::new(0.0, 1.0);
        for top in 0..2000 {
            let top = -(top as f32) / 64.0;
            let block = std::array::from_fn(|place| top - (place * place % 41) as f32 * 0.37);
            let exact = Mass::of_weights::<Portable>(&mass.weights::<Portable>(&block), top <= mass.light());
            assert_eq!(exact, mass.of_each(&block).iter().sum::<u64>());
            let (low, high) = mass.bounds_of_block::<Portable>(&block);
            assert!(low <= exact && exact <= high, "{low} <= {exact} <= {high}");
            assert!(high - low <= (exact >> 18) + 2 * BLOCK as u64, "{low} {high}");
            let (low, high) = mass.rough_bounds_of_block::<Portable>(&block);
            assert!(low <= exact && exact <= high, "{low} <= {exact} <= {high}");
            assert!(high - low <= exact / 14 + 2 * BLOCK as u64, "{low} {high}");
        }
    }

    /// Tries every exponent on the grid for which a token has a mass, and some that are coarser.
    #[test]
    fn a_surprise_is_a_float32() {
        let mass = Mass { maximum: 0.0, scale: 1.0, temperature: std::f64::consts::LOG2_E };
        let fine =
            (0..=44 << 16u32).map(|step| std::array::from_fn(|place| (step * BLOCK as u32 + place as u32) as f32));
        for block in fine.map(|block: [f32; BLOCK]| block.map(|step| -step / (1 << 22) as f32)) {
            let (weights, surprises) = mass.weights_and_surprises::<Portable>(&block);
            for place in [0, 1, BLOCK - 1] {
                assert_eq!(surprises[place], mass.surprise(block[place]) as f32);
                assert_eq!(surprises[place] as u32, mass.surprise(block[place]));
                assert_eq!(weights[place], mass.weight(block[place]));
            }
        }
        assert_eq!(mass.weights_and_surprises::<Portable>(&[f32::NEG_INFINITY; BLOCK]).1, [(1 << 28) as f32; BLOCK]);
    }

    #[test]
    fn below_the_floor_every_mass_is_too_small() {
        for maximum in [-1e30f32, -20.0, 0.0, 1e-30, 15.25, 3e38] {
            for temperature in [1e-20, 0.01, 0.7, 1.0, 100.0, 1e20] {
                let mass = Mass::new(maximum, temperature);
                for least in [1, 2, 1000, 1 << 20, (1 << S) - 1, 1 << S] {
                    let floor = mass.floor(least);
                    assert!(floor == f32::MIN || mass.of(floor.next_down()) < least, "{maximum} {temperature} {least}");
                    let exact = mass.least_logit(least);
                    assert!(mass.of(exact) >= least, "{maximum} {temperature} {least}");
                    assert!(exact == f32::MIN || mass.of(exact.next_down()) < least, "{maximum} {temperature} {least}");
                }
            }
        }
    }
}
