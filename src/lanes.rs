//! Values side by side: the sizes of blocks and registers, and the maximum of a block.
//!
//! Everything here is arithmetic on arrays of a fixed size, with no knowledge of rows or instruction sets. A loop over such an
//! array is what the compiler turns into vector instructions.

use half::f16;

/// The number of logits in a block. A block is four cache lines of float32. It is small enough that its maximum says much
/// about its 64 tokens, and large enough that a row of 262,144 logits has only 4,096 maxima.
pub(crate) const BLOCK: usize = 64;

/// How many values a loop body handles side by side: one AVX-512 register of float32, two of AVX2, four of SSE2 or NEON.
pub(crate) const LANES: usize = 16;

/// How many blocks have their maxima folded together.
pub(crate) const GROUP: usize = 8;

/// Added to a float32 of magnitude below 2**22, it rounds it to an integer, which then stands in the low bits.
pub(crate) const ROUND32: f32 = 12_582_912.0; // 1.5 * 2**23

/// Added to a float64 of magnitude below 2**51, it rounds it to an integer, which then stands in the low bits.
pub(crate) const ROUND64: f64 = 6_755_399_441_055_744.0; // 1.5 * 2**52

/// A number up to 2**LIGHT is light: sums of light numbers fit into lanes of 32 bits.
pub(crate) const LIGHT: u32 = 26;

/// Returns the larger of two floats, and one of them if the other is NaN. It is one instruction on every CPU: the comparison is
/// that of x86, and `f32::max` that of aarch64.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if cfg!(target_arch = "aarch64") {
        a.max(b)
    } else if b > a {
        b
    } else {
        a
    }
}

/// Returns eight values whose maximum is the maximum of the block, and sets a lane of `nan` if it contains a NaN.
#[inline(always)]
pub(crate) fn lanes(block: &[f32; BLOCK], nan: &mut [u32; LANES]) -> [f32; GROUP] {
    let mut lanes = [0f32; LANES];
    for lane in 0..LANES {
        let [a, b, c, d] = [0, 1, 2, 3].map(|part| block[part * LANES + lane]);
        let is_nan = (a.is_nan() | b.is_nan()) | (c.is_nan() | d.is_nan());
        nan[lane] |= if is_nan { u32::MAX } else { 0 };
        lanes[lane] = max(max(a, b), max(c, d));
    }
    let mut half = [0f32; GROUP];
    for lane in 0..GROUP {
        half[lane] = max(lanes[lane], lanes[lane + GROUP]);
    }
    half
}

/// Does the same for 16-bit floats, which are compared as integers that sort like the floats. `infinity` is the bit pattern of
/// +inf, and `to_f32` converts the bits of a float.
#[inline(always)]
pub(crate) fn narrow_lanes(
    bits: impl Fn(usize) -> u16,
    infinity: i16,
    to_f32: impl Fn(u16) -> f32,
    nan: &mut [u32; LANES],
) -> [f32; GROUP] {
    // Loops of fixed lengths, and float32 from here on: LLVM compiles a loop over the lengths, and a fold of 16-bit integers, to
    // single numbers in some builds. `argmax` then takes 150 us instead of 26.
    let (mut keys, mut magnitudes) = ([0i16; 2 * LANES], [0i16; 2 * LANES]);
    for i in 0..2 * LANES {
        let (a, b) = (bits(i) as i16, bits(i + 2 * LANES) as i16);
        keys[i] = turned(a).max(turned(b));
        magnitudes[i] = (a & i16::MAX).max(b & i16::MAX);
    }
    for i in 0..LANES {
        keys[i] = keys[i].max(keys[i + LANES]);
        magnitudes[i] = magnitudes[i].max(magnitudes[i + LANES]);
    }
    for lane in 0..LANES {
        nan[lane] |= if magnitudes[lane] > infinity { u32::MAX } else { 0 };
    }
    let mut half = [0.0; GROUP];
    for lane in 0..GROUP {
        half[lane] = to_f32(turned(keys[lane].max(keys[lane + GROUP])) as u16);
    }
    half
}

/// Converts the bits of a 16-bit float to an integer that sorts like the float, and back. For a negative number it flips all
/// bits below the sign.
#[inline(always)]
pub(crate) fn turned(bits: i16) -> i16 {
    bits ^ ((bits >> 15) & i16::MAX)
}

/// Computes `lanes.max(axis=1)` by halving eight rows of eight three times, with two rows in a register. Each step takes two
/// shuffles and one comparison.
#[inline(always)]
pub(crate) fn fold_together(lanes: &[[f32; GROUP]; GROUP]) -> [f32; GROUP] {
    let mut fours = [[0.0; GROUP]; 4]; // rows 2i and 2i + 1, four values of each
    for i in 0..4 {
        for j in 0..4 {
            fours[i][j] = max(lanes[2 * i][j], lanes[2 * i][j + 4]);
            fours[i][j + 4] = max(lanes[2 * i + 1][j], lanes[2 * i + 1][j + 4]);
        }
    }
    let mut twos = [[0.0; GROUP]; 2]; // rows 4i, 4i + 2, 4i + 1, 4i + 3, two values of each
    for i in 0..2 {
        for j in [0, 1, 4, 5] {
            twos[i][j] = max(fours[2 * i][j], fours[2 * i][j + 2]);
            twos[i][j + 2] = max(fours[2 * i + 1][j], fours[2 * i + 1][j + 2]);
        }
    }
    let mut maxima = [0.0; GROUP];
    for i in 0..2 {
        for (j, row) in [0, 2, 1, 3].into_iter().enumerate() {
            maxima[4 * i + row] = max(twos[i][2 * j], twos[i][2 * j + 1]);
        }
    }
    maxima
}

/// Returns a block with -inf in place of each value whose bit is not set.
#[inline(always)]
pub(crate) fn allowed(block: &[f32; BLOCK], bits: u64) -> [f32; BLOCK] {
    // A table of bits and lanes of 32 bits: a shift for each lane, of 64 bits, would take several times as long.
    const BITS: [u32; 32] = {
        let mut bits = [0; 32];
        let mut place = 0;
        while place < 32 {
            bits[place] = 1 << place;
            place += 1;
        }
        bits
    };
    let mut kept = [f32::NEG_INFINITY; BLOCK];
    for (half, (kept, block)) in kept.as_chunks_mut::<32>().0.iter_mut().zip(block.as_chunks::<32>().0).enumerate() {
        let word = (bits >> (32 * half)) as u32;
        for ((kept, &x), bit) in kept.iter_mut().zip(block).zip(BITS) {
            *kept = if word & bit != 0 { x } else { f32::NEG_INFINITY };
        }
    }
    kept
}

/// Splits a number of magnitude below 2**8 into the nearest integer (ties to even), at the place of an exponent, and the rest.
#[inline(always)]
pub(crate) fn split(t: f32) -> (u32, f32) {
    let rounded = t + ROUND32;
    (rounded.to_bits() << (f32::MANTISSA_DIGITS - 1), t - (rounded - ROUND32))
}

/// Multiplies by a power of two: `x * 2**n`, with n at the place of an exponent.
#[inline(always)]
pub(crate) fn times_power(x: f32, n: u32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(n))
}

/// Computes `power(f) * 2**n` for each `max(exponent(x), lowest) = n + f`, where n is the nearest integer.
///
/// There are two loops, with the values between them in memory. In a single loop each number would be a chain of operations of
/// 50 cycles, too long for the CPU to work on many of them at once.
#[inline(always)]
pub(crate) fn powers(
    block: &[f32; BLOCK],
    exponent: impl Fn(f32) -> f32,
    lowest: f32,
    power: impl Fn(f32) -> f32,
) -> [f32; BLOCK] {
    let (mut integers, mut fractions, mut powers) = ([0u32; BLOCK], [0f32; BLOCK], [0f32; BLOCK]);
    for ((n, fraction), &x) in integers.iter_mut().zip(&mut fractions).zip(block) {
        (*n, *fraction) = split(max(lowest, exponent(x)));
    }
    for ((result, &fraction), &n) in powers.iter_mut().zip(&fractions).zip(&integers) {
        *result = times_power(power(fraction), n);
    }
    powers
}

/// Returns the maximum of numbers without NaN, and -inf if there are no numbers.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = max(lanes[lane], chunk[lane]);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = max(lanes[lane], lanes[lane + width]);
        }
    }
    rest.iter().fold(lanes[0], |a, &b| max(a, b))
}

/// Adds up the numbers of a block in lanes.
#[inline(always)]
#[cfg(target_arch = "x86_64")] // only its instruction sets have a sum of their own
pub(crate) fn sums_in_lanes(number: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut lanes = [0f32; LANES];
    for (lane, sum) in lanes.iter_mut().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|part| number(part * LANES + lane));
        *sum = (a + b) + (c + d);
    }
    lanes
}

/// Adds up the numbers whose keys are below a limit, approximately.
#[inline(always)]
pub(crate) fn sum_below(keys: &[f32], limit: f32, numbers: &[f32], sum: impl Fn(&[f32; BLOCK]) -> f32) -> f32 {
    let below = |key, number| if key < limit { number } else { 0.0 };
    let ((keys, other_keys), (numbers, others)) = (keys.as_chunks::<BLOCK>(), numbers.as_chunks::<BLOCK>());
    let mut sums = [0f32; BLOCK];
    for (keys, numbers) in keys.iter().zip(numbers) {
        for lane in 0..BLOCK {
            sums[lane] += below(keys[lane], numbers[lane]);
        }
    }
    other_keys.iter().zip(others).fold(sum(&sums), |sum, (&key, &number)| sum + below(key, number))
}

/// Adds up the numbers of a block in halves. A loop over parts of eight lanes was compiled to additions of two and four, each
/// with a shuffle.
#[inline(always)]
pub(crate) fn sum_in_halves(number: impl Fn(usize) -> f32) -> f32 {
    let mut numbers = [0f32; BLOCK];
    for (place, sum) in numbers.iter_mut().enumerate() {
        *sum = number(place);
    }
    let mut half = BLOCK / 2;
    while half > 0 {
        let (first, second) = numbers.split_at_mut(half);
        for (a, b) in first.iter_mut().zip(second) {
            *a += *b;
        }
        half /= 2;
    }
    numbers[0]
}

/// Returns the sum of numbers below 2**51, each rounded to an integer, with ties to even.
#[inline(always)]
pub(crate) fn sum_of_rounded(weights: &[f32; BLOCK]) -> u64 {
    let mut sum = 0u64;
    for &weight in weights {
        sum = sum.wrapping_add((f64::from(weight) + ROUND64).to_bits());
    }
    sum.wrapping_sub((BLOCK as u64).wrapping_mul(ROUND64.to_bits()))
}

/// A sum of numbers that are rounded to integers, with ties to even. `Vector::add` adds the numbers of a block.
///
/// In the lanes of 32 bits, adding a block takes no additions across lanes and none of 64 bits. Before a lane can overflow, each
/// is added to its lane of `whole`.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    whole: [u64; LANES],
    /// How many blocks are in the lanes of 32 bits.
    blocks: usize,
    light: [u32; LANES],
    /// The other numbers, each rounded to a multiple of 2**20, in units of 2**20.
    high: [u32; LANES],
    /// What each of these numbers has more than that: an integer of at most 2**19, or a negative one.
    low: [u32; LANES],
}

impl Sum {
    /// The most blocks in the lanes: each adds four numbers of up to 2**LIGHT to a lane.
    const MOST_BLOCKS: usize = 8;

    /// Adds an integer.
    #[inline(always)]
    pub fn add(&mut self, number: u64) {
        self.whole[0] = self.whole[0].wrapping_add(number);
    }

    /// Adds the numbers of a block to the lanes. They must be in [0, 2**41]. `add_light` adds them if they are light.
    #[inline(always)]
    pub fn add_to_lanes(&mut self, numbers: &[f32; BLOCK], is_light: bool, add_light: impl Fn(&mut [u32; LANES])) {
        if is_light {
            add_light(&mut self.light);
        } else {
            self.add_halves(numbers);
        }
        self.blocks += 1;
        if self.blocks == Sum::MOST_BLOCKS {
            self.empty_lanes();
        }
    }

    /// Splits each number into two integers, without leaving float32.
    #[inline(always)]
    fn add_halves(&mut self, numbers: &[f32; BLOCK]) {
        const ROUND_HIGH: f32 = 1.5 * (1u64 << 43) as f32; // the last bit of a sum with this is 2**20
        const ROUND_LOW: f32 = 1.5 * (1u64 << 23) as f32; // the last bit of a sum with this is 1
        let (mut high, mut low) = ([0u32; BLOCK], [0u32; BLOCK]);
        for ((high, low), &x) in high.iter_mut().zip(&mut low).zip(numbers) {
            let rounded = x + ROUND_HIGH;
            *high = rounded.to_bits();
            *low = (x - (rounded - ROUND_HIGH) + ROUND_LOW).to_bits();
        }
        let in_lane = |bits: &[u32; BLOCK], lane: usize, round: f32| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|part| bits[part * LANES + lane]);
            let sum = a.wrapping_add(b).wrapping_add(c.wrapping_add(d));
            sum.wrapping_sub(round.to_bits().wrapping_mul(4))
        };
        for lane in 0..LANES {
            self.high[lane] = self.high[lane].wrapping_add(in_lane(&high, lane, ROUND_HIGH));
            self.low[lane] = self.low[lane].wrapping_add(in_lane(&low, lane, ROUND_LOW));
        }
    }

    /// Adds the lanes of 32 bits to those of 64 bits. They are not added up here: LLVM would take all of them apart into single
    /// numbers.
    #[inline(always)]
    fn empty_lanes(&mut self) {
        for (lane, whole) in self.whole.iter_mut().enumerate() {
            let (high, low) = (u64::from(self.high[lane]) << 20, i64::from(self.low[lane] as i32) as u64);
            *whole = whole.wrapping_add(high).wrapping_add(low).wrapping_add(u64::from(self.light[lane]));
        }
        *self = Sum { whole: self.whole, ..Sum::default() };
    }

    #[inline(always)]
    pub fn total(mut self) -> u64 {
        self.empty_lanes();
        self.whole.iter().fold(0, |total, &whole| total.wrapping_add(whole))
    }
}

/// Sums of numbers that are rounded to integers, with ties to even, and of their products with other integers, in lanes of 64
/// bits. `Vector::add_products` adds a block.
#[derive(Clone, Copy, Default)]
pub struct Products {
    pub numbers: [u64; GROUP],
    pub products: [u64; GROUP],
}

impl Products {
    /// The largest number is 2**LIGHT, because the sum of four of them must fit in 32 bits.
    pub const LIGHT: u32 = 28;

    /// Adds a block of numbers, each with its factor, which is an integer of at most 2**28. No sum may reach 2**64.
    #[inline(always)]
    pub fn add(&mut self, numbers: &[f32; BLOCK], factors: &[f32; BLOCK]) {
        let integer = |x: f32| (f64::from(x) + ROUND64).to_bits() as u32;
        let (numbers, factors) = (numbers.as_chunks::<GROUP>().0, factors.as_chunks::<GROUP>().0);
        for (numbers, factors) in numbers.iter().zip(factors) {
            for lane in 0..GROUP {
                let (number, factor) = (u64::from(integer(numbers[lane])), u64::from(integer(factors[lane])));
                self.numbers[lane] = self.numbers[lane].wrapping_add(number);
                self.products[lane] = self.products[lane].wrapping_add(number * factor);
            }
        }
    }

    /// Adds a block of integers, less a bias, and their squares, with the bias and modulo 2**64.
    #[inline(always)]
    pub fn add_squares(&mut self, biased: &[u32; BLOCK], bias: u32) {
        for biased in biased.as_chunks::<GROUP>().0 {
            for (lane, &biased) in biased.iter().enumerate() {
                let wide = u64::from(biased);
                self.numbers[lane] = self.numbers[lane].wrapping_add(u64::from(biased.wrapping_sub(bias)));
                self.products[lane] = self.products[lane].wrapping_add(wide.wrapping_mul(wide));
            }
        }
    }

    /// Returns the sum of the numbers, and that of the products.
    #[inline(always)]
    pub fn total(&self) -> (u64, u128) {
        let (mut number, mut product) = (0u64, 0);
        for lane in 0..GROUP {
            number = number.wrapping_add(self.numbers[lane]);
            product += u128::from(self.products[lane]);
        }
        (number, product)
    }
}

/// Moves the exponent and the mantissa to their places in a float32. One multiplication by a power of two then corrects
/// the bias of the exponent, and also makes subnormal values right. Infinities and NaN get their exponent back. There are
/// no branches, so that loops over this function can be vectorized, which the conversion of `half` cannot.
#[inline(always)]
pub(crate) fn from_f16(x: f16) -> f32 {
    const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23); // 2**112
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
    let value = (f32::from_bits(magnitude) * REBIAS).to_bits() | special;
    f32::from_bits(value | (bits & 0x8000) << 16)
}
