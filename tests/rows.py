"""Rows and parameters that are hard for a sampler, from a random generator and as hypothesis strategies.

`make_rows` makes a whole batch of one kind at once, as the stress test needs it. The strategies choose the kind, the length
and the generator's seed. They also make short rows, and hypothesis chooses and shrinks every value of those.
"""

import dataclasses
import math
from pathlib import Path

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toksample._orders import EDITS, ORDERS, STEPS, SWITCHES
from toksample._parameters import PARAMETERS

FIXTURES = Path(__file__).parent / "fixtures"
DTYPES = ["float32", "float16", "bfloat16", "float64"]
LN_2 = math.log(2)
INF = np.float32(np.inf)
TINY = np.float32(1.4e-45)  # the smallest subnormal
FLOAT32_MAX = np.finfo(np.float32).max

# The kernels work on blocks of 64 and groups of 8 blocks: lengths around multiples of both.
LENGTHS = [*range(1, 18), 31, 32, 33, 63, 64, 65, 66, 127, 128, 129, 191, 192, 193, 255, 256, 257, 300]
LONG_LENGTHS = [511, 512, 513, 575, 576, 577, 640, 1023, 1024, 1025, 1100]


def cast(rows, dtype):
    """Cast float32 rows to another type of logit. Values out of range become its largest or smallest finite value."""
    if dtype == "float32":
        return rows
    if dtype == "float64":
        # Add bits below the precision of float32, so that rounding to float32 may make or break ties.
        target, rows = np.dtype(dtype), rows.astype(np.float64) * (1 + np.arange(rows.shape[-1]) % 5 * 2.0**-26)
        largest = float(FLOAT32_MAX)
    else:
        target = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
        largest = np.float32(ml_dtypes.finfo(target).max)
    clipped = np.where(rows == -np.inf, rows, np.clip(rows, -largest, largest))
    with np.errstate(under="ignore"):
        return clipped.astype(target)


# ---- rows --------------------------------------------------------------------------------------------------------------


def _normal(rng, shape):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1.5, (shape[0], 1))


def _few_values(rng, shape):
    values = rng.choice([-8.0, -2.5, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, 30.0], (shape[0], 4))
    return np.take_along_axis(values, rng.integers(0, rng.integers(1, 5), shape), axis=1)


def _banned(rng, shape):
    rows = _normal(rng, shape)
    start = rng.integers(0, shape[1], (shape[0], 2, 1))
    length = rng.integers(0, shape[1] + 1, (shape[0], 2, 1))
    ids = np.arange(shape[1])
    rows[((ids >= start) & (ids < start + length)).any(axis=1)] = -np.inf
    rows[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = rng.standard_normal(shape[0])
    return rows


def _denormal(rng, shape):
    return rng.integers(-3, 4, shape).astype(np.float32) * TINY * rng.choice([np.float32(1), np.float32(-1)], shape)


def _huge(rng, shape):
    magnitude = 10.0 ** rng.uniform(-38, 38.4, shape)
    return np.minimum(magnitude, FLOAT32_MAX) * rng.choice([-1.0, 1.0], shape)


def _peaked(rng, shape):
    rows = rng.uniform(-60, -20, (shape[0], 1)) + rng.standard_normal(shape)
    rows[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 0
    return rows


def _ascending(rng, shape):
    return np.sort(_normal(rng, shape), axis=1)


def _descending(rng, shape):
    return -np.sort(_normal(rng, shape), axis=1)


def _thresholds(rng, shape):
    """Return tokens near the powers of two where a mass rounds to 0 or 1, where light blocks begin and where t is cut off."""
    power = rng.choice([-20.0, -21.0, -22.0, -40.0, -41.0, -42.0, -43.0, -44.0, -63.0, -64.0, -65.0, 0.0], shape)
    rows = LN_2 * (power + rng.uniform(-1e-5, 1e-5, shape) * rng.integers(0, 2, shape))
    rows[:, 0] = 0
    return rng.permuted(rows, axis=1)


def _halves(rng, shape):
    """Return powers of two near n + 1/2, where the polynomial's argument jumps from one end of its range to the other."""
    return LN_2 * (rng.integers(-12, 1, shape) + 0.5 + rng.integers(-3, 4, shape) * 2.0**-22)


def _neighbours(rng, shape):
    """Return adjacent float32 values: the logits differ, but the masses may be equal."""
    base = (rng.standard_normal((shape[0], 1)) * 10).astype(np.float32).view(np.int32)
    return (base + rng.integers(-3, 4, shape, dtype=np.int32)).astype(np.int32).view(np.float32)


def _rounded_to_half(rng, shape):
    return (_normal(rng, shape)).astype(np.float16)


def _rounded_to_brain(rng, shape):
    return _normal(rng, shape).astype(ml_dtypes.bfloat16)


KINDS = {
    "normal": _normal,
    "few values": _few_values,
    "banned": _banned,
    "denormal": _denormal,
    "huge": _huge,
    "peaked": _peaked,
    "ascending": _ascending,
    "descending": _descending,
    "thresholds": _thresholds,
    "halves": _halves,
    "neighbours": _neighbours,
    "rounded to float16": _rounded_to_half,
    "rounded to bfloat16": _rounded_to_brain,
}


def make_rows(rng, kind, count, size):
    """Make float32 rows of one kind. Each row has a finite value, and none has NaN or +inf."""
    return np.ascontiguousarray(KINDS[kind](rng, (count, size)), dtype=np.float32)


# ---- parameters --------------------------------------------------------------------------------------------------------

TEMPERATURES = [0.0, 1e-30, 1e-29, 1e-10, 0.01, 0.5, 0.7, 1.0, 1.5, 2.0, 100.0, 1e4, 1e10, 1e29, 1e30]
TOP_KS = [0, 1, 2, 3, 50, 2**31, 2**63, 2**64 - 1]
TOP_PS = [0.0, 5e-324, 1e-300, 1e-10, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1 - 2.0**-41, 1 - 2.0**-53, 1.0]
TYPICAL_PS = [0.0, 5e-324, 1e-10, 0.1, 0.2, 0.5, 0.75, 0.9, 0.95, 1 - 2.0**-53, 1.0]
EPSILON_CUTOFFS = [0.0, 5e-324, 1e-20, 2.0**-62, 2.0**-41, 3e-4, 9e-3, 0.1, 0.5, 1 - 2.0**-53, 1.0]
TOP_AS = [0.0, 5e-324, 1e-20, 2.0**-41, 1e-3, 0.04, 0.2, 0.5, 1 - 2.0**-53, 1.0]
TOP_N_SIGMAS = [0.0, 5e-324, 1e-6, 0.1, 0.5, 1.0, 1.5, 3.0, 1e4, 1e30]
ETA_CUTOFFS = [0.0, 5e-324, 1e-20, 2.0**-41, 3e-4, 2e-3, 0.1, 0.5, 1 - 2.0**-53, 1.0]
TFS = [0.0, 5e-324, 0.1, 0.5, 0.9, 0.95, 0.99, 1 - 2.0**-53, 1.0]
TOP_HS = [0.0, 5e-324, 1e-6, 0.1, 0.4, 0.9, 1 - 2.0**-53, 1.0]
XTC_PROBABILITIES = [0.0, 5e-324, 2.0**-64, 0.25, 0.5, 1 - 2.0**-53, 1.0]
XTC_THRESHOLDS = [0.0, 5e-324, 1e-20, 2.0**-41, 1e-3, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.5 + 2.0**-53, 1.0]
DYNATEMP_RANGES = [0.0, 5e-324, 0.5, 1.0, 1e30]
DYNATEMP_EXPONENTS = [0.0, 5e-324, 0.5, 1.0, 2.0, 1e30]
SMOOTHING_FACTORS = [5e-324, 1e-46, 0.1, 0.3, 1e30]
ADAPTIVE_TARGETS = [0.0, 5e-324, 1e-9, 0.3, 0.5, 1 - 2.0**-53, 1.0]
MIROSTAT_MUS = [-1e30, -1.0, 0.0, 1.0, 10.0, 64.0, 2000.0, 1e30]
REPETITION_PENALTIES = [1.0, 1e-30, 0.5, 1.05, 1.3, 2.0, 10.0, 1e30]
ADDED_PENALTIES = [0.0, -0.0, -1e30, -2.0, 1e-30, 0.1, 0.5, 2.0, 1e30]
BIASES = [0.0, -np.inf, -3.4e38, 3.4e38, -100.0, 100.0, 1e-45, -1.0, 5.0]
MIN_PS = [0.0, 5e-324, 1e-20, 2.0**-42, 2.0**-41, 2.0**-40.5, 0.05, 0.1, 0.25, 0.5, 1 - 2.0**-53, 1.0]
WORDS = [0, 1, 2, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def _some(rng, fixed, random, rate=0.5):
    """Take each value from the list `fixed` or, at the given rate, from `random`."""
    return np.where(rng.random(len(random)) < rate, random, rng.choice(fixed, len(random)))


def make_filters(rng, count, size):
    """Make filters for each of `count` rows of `size` tokens. Each filter is off for many of the rows."""
    on = rng.random((16, count)) < np.array([0.6] * 3 + [0.3] * 8 + [0.1] + [0.2] * 4)[:, None]
    ks = np.array([*TOP_KS, max(size - 1, 0), size, size + 1], np.uint64)
    ties = rng.integers(1, size + 1, count) / size  # the shares that prefixes of equal tokens have
    return {
        "temperature": _some(rng, TEMPERATURES, 10.0 ** rng.uniform(-2, 2, count), 0.6),
        "top_k": np.where(on[0], _some(rng, ks, rng.integers(1, size + 1, count, dtype=np.uint64)), np.uint64(0)),
        "top_p": np.where(on[1], _some(rng, TOP_PS, np.where(on[0], ties, 1 - rng.random(count)), 0.7), 1.0),
        "min_p": np.where(on[2], _some(rng, MIN_PS, 10.0 ** rng.uniform(-13, 0, count)), 0.0),
        "typical_p": np.where(on[3], _some(rng, TYPICAL_PS, rng.random(count), 0.7), 1.0),
        "epsilon_cutoff": np.where(on[4], _some(rng, EPSILON_CUTOFFS, 10.0 ** rng.uniform(-7, 0, count), 0.7), 0.0),
        "top_a": np.where(on[5], _some(rng, TOP_AS, 10.0 ** rng.uniform(-7, 0, count), 0.7), 0.0),
        "eta_cutoff": np.where(on[6], _some(rng, ETA_CUTOFFS, 10.0 ** rng.uniform(-7, 0, count), 0.7), 0.0),
        "top_n_sigma": np.where(on[7], _some(rng, TOP_N_SIGMAS, rng.uniform(0, 4, count), 0.7), 0.0),
        "tfs": np.where(on[8], _some(rng, TFS, rng.random(count), 0.7), 1.0),
        "top_h": np.where(on[9], _some(rng, TOP_HS, rng.random(count), 0.7), 0.0),
        "xtc_probability": np.where(on[10], _some(rng, XTC_PROBABILITIES, rng.random(count)), 0.0),
        "xtc_threshold": _some(rng, XTC_THRESHOLDS, np.where(on[0], ties, 10.0 ** rng.uniform(-7, 0, count)), 0.7),
        "min_tokens_to_keep": np.where(
            on[11], _some(rng, ks, rng.integers(1, size + 1, count, dtype=np.uint64)), np.uint64(1)
        ),
        "dynatemp_range": np.where(on[12], _some(rng, DYNATEMP_RANGES, rng.uniform(0, 3, count)), 0.0),
        "dynatemp_exponent": _some(rng, DYNATEMP_EXPONENTS, rng.uniform(0, 3, count)),
        "smoothing_factor": np.where(on[13], _some(rng, SMOOTHING_FACTORS, rng.uniform(0, 1, count)), 0.0),
        "smoothing_curve": _some(rng, [1.0, 2.0, 3.0], rng.uniform(1, 3, count)),
        "mirostat": np.where(on[14], rng.integers(1, 3, count), 0),
        "mirostat_mu": _some(rng, MIROSTAT_MUS, rng.uniform(0, 20, count)),
        "adaptive_target": np.where(on[15], _some(rng, ADAPTIVE_TARGETS, rng.random(count)), -1.0),
        "adaptive_average": _some(rng, ADAPTIVE_TARGETS, rng.random(count)),
    }


def make_order(rng):
    """Make an order: that of a system, or some of the steps in any order."""
    if rng.random() < 0.3:
        return ORDERS[rng.choice(sorted(ORDERS))]
    steps = {STEPS[step]: step for step in rng.permutation(sorted(STEPS)).tolist()}  # one for each parameter
    edits = rng.permutation(sorted(EDITS)).tolist() if rng.random() < 0.6 else []
    return (*edits[: rng.integers(1, 12)], *list(steps.values())[: rng.integers(0, 2 * len(steps))])


def with_order(params, order):
    """Return parameters that are applied in an order. Those for which it has no step are turned off."""
    applied = {STEPS.get(step) for step in order} | {name for name, step in SWITCHES.items() if step in order}
    lacking = [name for name in (*STEPS.values(), *SWITCHES) if name in params and name not in applied]
    off = {name: np.full_like(params[name], PARAMETERS[name].off)[()] for name in lacking}
    return params | off | {"order": order}


def make_edits(rng, rows):
    """Make histories and penalties, biases and a bitmask for each row. Some rows lack some of them.

    Every row keeps a finite value, because neither the biases nor the bitmask ban its largest one.
    """
    count, size = rows.shape
    best = np.argmax(rows, axis=1)
    edits = {}
    if rng.random() < 0.6:
        edits["prompt_ids"] = rng.integers(0, size, (count, rng.integers(0, 9)))
        # A few different tokens, so that they repeat, and the most probable one, whose penalty matters most.
        output = rng.integers(0, min(size, 12), (count, rng.integers(0, 30)))
        edits["output_ids"] = np.where(rng.random(output.shape) < 0.2, best[:, None], output)
        edits["penalty_window"] = _some(
            rng, np.array([0, 1, 2, 2**64 - 1], np.uint64), rng.integers(0, 40, count, dtype=np.uint64)
        )
        edits["repetition_penalty"] = _some(rng, REPETITION_PENALTIES, 10.0 ** rng.uniform(-1, 1, count))
        edits["frequency_penalty"] = _some(rng, ADDED_PENALTIES, rng.uniform(-2, 2, count))
        edits["presence_penalty"] = _some(rng, ADDED_PENALTIES, rng.uniform(-2, 2, count))
    if rng.random() < 0.4:
        edits["logit_bias"] = [_make_biases(rng, size, int(token)) for token in best]
    if rng.random() < 0.4:
        words = rng.integers(-(2**31), 2**31, (count, rng.integers(1, -(-size // 32) + 1)), dtype=np.int64)
        words[rng.random(words.shape) < 0.3] = -1
        short = best >= 32 * words.shape[1]
        if not short.any():
            words[np.arange(count), best // 32] |= 1 << best % 32
            edits["bitmask"] = words.astype(np.uint32, casting="unsafe").view(np.int32)
    return edits


def make_rules(rng, count, size):
    """Make histories, and for each row the parameters of methods that look at them, and bans. A row may lose all tokens."""
    few = min(size, 5)

    def ids(most, least=0):
        return rng.integers(0, few if rng.random() < 0.5 else size, rng.integers(least, most + 1)).tolist()

    def maybe(rate, make):
        return [make() if rng.random() < rate else None for _ in range(count)]

    def bias():
        return float(rng.choice([0.5, -2.0, -np.inf, 3.4e38, rng.normal()]))

    rules = {
        "prompt_ids": maybe(0.8, lambda: rng.integers(0, few, rng.integers(0, 20))),
        "output_ids": maybe(0.8, lambda: rng.integers(0, few, rng.integers(0, 40)).tolist()),
        "no_repeat_ngram_size": maybe(0.5, lambda: [1, 2, 3, 4, 2**64 - 1][rng.integers(0, 5)]),
        "dry_multiplier": maybe(0.7, lambda: float(rng.choice([0.8, 1e30, rng.uniform(0, 3)]))),
        "dry_base": maybe(0.5, lambda: float(rng.choice([1.0, 1e30, rng.uniform(1, 3)]))),
        "dry_allowed_length": maybe(0.5, lambda: int(rng.integers(1, 4))),
        "dry_penalty_last_n": maybe(0.3, lambda: int(rng.integers(0, 30))),
        "dry_sequence_breakers": maybe(0.4, lambda: ids(2)),
        "encoder_repetition_penalty": maybe(0.4, lambda: float(rng.choice([1e-30, 1e30, rng.uniform(0.5, 2)]))),
        "repetition_penalty": maybe(0.3, lambda: float(rng.uniform(0.5, 2))),
        "presence_penalty": maybe(0.3, lambda: float(rng.uniform(-1, 1))),
        "sequence_bias": maybe(0.5, lambda: {tuple(ids(3, 1)): bias() for _ in range(rng.integers(0, 6))}),
        "bad_words_ids": maybe(0.4, lambda: [ids(3, 1) for _ in range(rng.integers(0, 4))]),
        "logit_bias": maybe(0.2, lambda: {token: bias() for token in ids(3)}),
        "exponential_decay_length_penalty": maybe(
            0.4, lambda: (int(rng.integers(0, 20)), float(rng.choice([0.5, 1e30, rng.uniform(1, 2)])))
        ),
        "eos_token_ids": maybe(0.6, lambda: ids(3)),
        "min_new_tokens": maybe(0.3, lambda: int(rng.integers(0, 30))),
        "max_new_tokens": maybe(0.3, lambda: int(rng.integers(0, 30))),
        "allowed_token_ids": maybe(0.15, lambda: ids(2 * size)),
        "suppress_tokens": maybe(0.2, lambda: ids(4)),
        "begin_suppress_tokens": maybe(0.2, lambda: ids(4)),
        "forced_bos_token_id": maybe(0.2, lambda: int(rng.integers(0, size))),
        "forced_eos_token_id": maybe(0.2, lambda: int(rng.integers(0, size))),
        "xtc_probability": maybe(0.4, lambda: 1.0),
        "xtc_threshold": maybe(0.9, lambda: float(rng.choice([1e-3, 0.05, 0.2]))),
        "xtc_exempt_token_ids": maybe(0.5, lambda: ids(2)),
    }
    return {name: values for name, values in rules.items() if rng.random() < 0.8}


def _make_biases(rng, size, best):
    if rng.random() < 0.3:
        return None
    ids = rng.integers(0, size, rng.integers(0, 10)).tolist()
    biases = _some(rng, BIASES, rng.uniform(-10, 10, len(ids))).tolist()
    return {token: bias for token, bias in zip(ids, biases, strict=True) if token != best or bias > -np.inf}


def make_params(rng, rows):
    """Make filters and edits for each row of a batch, and sometimes an order."""
    params = make_filters(rng, *rows.shape) | make_edits(rng, rows)
    return with_order(params, make_order(rng)) if rng.random() < 0.4 else params


def make_words(rng, count):
    """Make a seed, a stream and a position for each row."""
    fixed = np.array(WORDS, np.uint64)
    return {
        name: _some(rng, fixed, rng.integers(0, 2**64, count, dtype=np.uint64), 0.8)
        for name in ("seed", "stream", "position")
    }


def one_row(params, b):
    """Return the parameters of row `b` alone: Python numbers, arrays of ids and masks, mappings."""
    each = {name: values if name == "order" else values[b] for name, values in params.items()}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in each.items()}


def pick(params, places):
    """Return the parameters of the rows at these places."""
    return {
        name: values[places] if isinstance(values, np.ndarray) else [values[b] for b in places]
        for name, values in params.items()
        if name != "order"
    } | {name: values for name, values in params.items() if name == "order"}


# ---- hypothesis --------------------------------------------------------------------------------------------------------

generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
lengths = st.one_of(st.sampled_from(LENGTHS), st.sampled_from(LONG_LENGTHS), st.integers(1, 1200))

_values = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, float(TINY), -float(TINY), float(FLOAT32_MAX), -float(FLOAT32_MAX), -np.inf]
    ),
    st.integers(-8, 8).map(float),
    st.floats(-50, 50, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
_short_rows = hnp.arrays(np.float32, st.integers(1, 70), elements=_values, fill=st.nothing()).filter(
    lambda row: bool(np.any(row > -np.inf))
)
_made_rows = st.builds(
    lambda rng, kind, size: make_rows(rng, kind, 1, size)[0], generators, st.sampled_from(sorted(KINDS)), lengths
)
rows = st.one_of(_short_rows, _made_rows)


def _mixed_batch(rng, kinds, size):
    return np.concatenate([make_rows(rng, kind, 1, size) for kind in kinds])


batches = st.builds(_mixed_batch, generators, st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=9), lengths)

temperatures = st.one_of(st.sampled_from(TEMPERATURES), st.floats(0.01, 100), st.floats(1e-30, 1e30))
filter_params = st.fixed_dictionaries(
    {
        "temperature": temperatures,
        "top_k": st.one_of(st.just(0), st.sampled_from(TOP_KS), st.integers(0, 1300)),
        "top_p": st.one_of(st.just(1.0), st.sampled_from(TOP_PS), st.floats(0, 1, exclude_min=True)),
        "min_p": st.one_of(st.just(0.0), st.sampled_from(MIN_PS), st.floats(0, 1)),
        "typical_p": st.one_of(st.just(1.0), st.sampled_from(TYPICAL_PS), st.floats(0, 1)),
        "epsilon_cutoff": st.one_of(st.just(0.0), st.sampled_from(EPSILON_CUTOFFS), st.floats(0, 1)),
        "top_a": st.one_of(st.just(0.0), st.sampled_from(TOP_AS), st.floats(0, 1)),
        "eta_cutoff": st.one_of(st.just(0.0), st.sampled_from(ETA_CUTOFFS), st.floats(0, 1)),
        "top_n_sigma": st.one_of(st.just(0.0), st.sampled_from(TOP_N_SIGMAS), st.floats(0, 4)),
        "tfs": st.one_of(st.just(1.0), st.sampled_from(TFS), st.floats(0, 1)),
        "top_h": st.one_of(st.just(0.0), st.sampled_from(TOP_HS), st.floats(0, 1)),
        "dynatemp_range": st.one_of(st.just(0.0), st.sampled_from(DYNATEMP_RANGES), st.floats(0, 3)),
        "dynatemp_exponent": st.one_of(st.just(1.0), st.sampled_from(DYNATEMP_EXPONENTS)),
        "smoothing_factor": st.one_of(st.just(0.0), st.sampled_from(SMOOTHING_FACTORS), st.floats(0, 1)),
        "smoothing_curve": st.one_of(st.just(1.0), st.floats(1, 3)),
        "mirostat": st.one_of(st.just(0), st.integers(0, 2)),
        "mirostat_mu": st.one_of(st.sampled_from(MIROSTAT_MUS), st.floats(0, 20)),
        "adaptive_target": st.one_of(st.just(-1.0), st.sampled_from(ADAPTIVE_TARGETS), st.floats(0, 1)),
        "adaptive_average": st.one_of(st.sampled_from(ADAPTIVE_TARGETS), st.floats(0, 1)),
    }
)
orders = st.one_of(
    st.sampled_from(list(ORDERS.values())),
    st.builds(
        lambda edits, filters: (*edits, *filters),
        st.lists(st.sampled_from(list(EDITS)), unique=True),
        st.lists(st.sampled_from(list(STEPS)), unique_by=lambda step: STEPS[step]),
    ),
)
_xtc = st.fixed_dictionaries(
    {
        "xtc_probability": st.one_of(st.just(0.0), st.sampled_from(XTC_PROBABILITIES), st.floats(0, 1)),
        "xtc_threshold": st.one_of(st.sampled_from(XTC_THRESHOLDS), st.floats(0, 1)),
        "min_tokens_to_keep": st.one_of(st.just(1), st.sampled_from(TOP_KS), st.integers(0, 1300)),
    }
)
_all_filters = st.builds(lambda filters, xtc: filters | xtc, filter_params, _xtc)
ordered_params = st.one_of(_all_filters, st.builds(with_order, _all_filters, orders))
word = st.one_of(st.sampled_from(WORDS), st.integers(0, 2**64 - 1))
words = st.fixed_dictionaries({"seed": word, "stream": word, "position": word})


# ---- comparing ---------------------------------------------------------------------------------------------------------


def assert_same(got, want):
    """Assert that two results are the same to the bit: types, shapes and values."""
    if dataclasses.is_dataclass(want):
        assert type(got) is type(want)
        for field in dataclasses.fields(want):
            assert_same(getattr(got, field.name), getattr(want, field.name))
        return
    if isinstance(want, tuple):
        assert isinstance(got, tuple)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
        return
    if not isinstance(want, np.ndarray):
        assert type(got) is type(want)
        assert got == want
        return
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    different = _bits(got) != _bits(want)
    at = tuple(int(i[0]) for i in np.nonzero(different)) if different.any() else None
    assert at is None, f"{np.count_nonzero(different)} values differ, first at {at}: got {got[at]!r}, want {want[at]!r}"


def _bits(array):
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
