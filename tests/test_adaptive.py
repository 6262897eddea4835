"""The methods that adapt to the row or to the text: dynamic temperature, smoothing and mirostat."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import (
    DTYPES,
    DYNATEMP_EXPONENTS,
    DYNATEMP_RANGES,
    FLOAT32_MAX,
    KINDS,
    MIROSTAT_MUS,
    SMOOTHING_FACTORS,
    assert_same,
    cast,
    make_edits,
    make_rows,
    one_row,
)
from rows import rows as any_rows

import toksample
from toksample import Sampler, SamplingParams, reference

INF = math.inf
dtypes = pytest.mark.parametrize("dtype", DTYPES)
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
ROW = np.float32([1.0, 3.0, 2.0, -1.0])
RANGES = st.one_of(st.sampled_from(DYNATEMP_RANGES), st.floats(0, 3))
EXPONENTS = st.one_of(st.sampled_from(DYNATEMP_EXPONENTS), st.floats(0, 4))
FILTERS = st.sampled_from(
    [
        {},
        {"top_k": 40},
        {"top_k": 130},
        {"top_p": 0.9},
        {"typical_p": 0.5},
        {"xtc_probability": 0.9, "xtc_threshold": 1e-3},
        {"typical_p": 0.9, "xtc_probability": 0.5, "xtc_threshold": 0.01},
    ]
)
FACTORS = st.one_of(st.sampled_from(SMOOTHING_FACTORS), st.floats(0, 5))
MUS = st.one_of(st.sampled_from(MIROSTAT_MUS), st.floats(0, 25))


def everything(module, logits, **parameters):
    """Return a module's answers for one row: the candidates, the masked logits, and a few draws."""
    drawn = [module.sample(logits, **parameters, seed=seed) for seed in range(3)]
    ids, probs = module.candidates(logits, **parameters, seed=1)
    return ids, probs, module.mask_logits(logits, **parameters, seed=1), np.array(drawn)


def assert_kernels_agree(row, **parameters):
    assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


def logs(*probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


# ---- dynamic temperature -----------------------------------------------------------------------------------------------


def temperature_of_llama_cpp(row, temperature, spread, exponent):
    """Return the temperature that llama_sampler_temp_ext divides by, in float64."""
    probs = softmax(row[row > -np.inf])
    entropy = -sum(p * math.log(p) for p in probs if p > 0)
    low, high = max(0.0, temperature - spread), temperature + spread
    return low + (high - low) * (entropy / math.log(len(probs))) ** exponent


@both
def test_dynamic_temperature_is_that_of_llama_cpp(module):
    rng = np.random.default_rng(5)
    for _ in range(200):
        row = (rng.standard_normal(rng.integers(2, 300)) * rng.uniform(0.3, 4)).astype(np.float32)
        if len(row) > 2:
            row[rng.integers(len(row))] = -INF
        temperature, spread, exponent = rng.uniform(0.5, 2), rng.uniform(0.01, 1.5), rng.uniform(0.2, 3)
        given = {"temperature": temperature, "dynatemp_range": spread, "dynatemp_exponent": exponent}
        ids, probs = module.candidates(row, **given)
        want = softmax(row[ids].astype(np.float64) / temperature_of_llama_cpp(row.astype(np.float64), *given.values()))
        np.testing.assert_allclose(probs, want, rtol=2e-4, atol=1e-9)


@both
@pytest.mark.parametrize(
    ("row", "given", "same"),
    [
        (
            np.zeros(5, np.float32),
            {"temperature": 1.0, "dynatemp_range": 0.5},
            {"temperature": 1.5},
        ),  # H is the largest
        (ROW, {"temperature": 0.8, "dynatemp_range": 0.5, "dynatemp_exponent": 0.0}, {"temperature": 1.3}),
        (ROW, {"temperature": 0.8, "dynatemp_range": 0.0, "dynatemp_exponent": 3.0}, {"temperature": 0.8}),
        (ROW, {"temperature": 0.8, "dynatemp_range": None}, {"temperature": 0.8}),
        # A power of nearly 0 leaves the lower end, and there no temperature is below 1e-30.
        (ROW, {"temperature": 0.75, "dynatemp_range": 0.5, "dynatemp_exponent": 1e30}, {"temperature": 0.25}),
        (ROW, {"temperature": 0.5, "dynatemp_range": 0.5, "dynatemp_exponent": 1e30}, {"temperature": 1e-30}),
        (ROW, {"temperature": 0.5, "dynatemp_range": 1e30, "dynatemp_exponent": 0.0}, {"temperature": 1e30}),
        # The second token has no mass, so there is no entropy.
        (np.float32([0, -1e6, -1e6]), {"temperature": 2.0, "dynatemp_range": 1.5}, {"temperature": 0.5}),
        # With one token the temperature does not matter.
        (np.float32([-INF, 4, -INF]), {"temperature": 2.0, "dynatemp_range": 1.5}, {}),
        (ROW, {"temperature": 0.0, "dynatemp_range": 1.5}, {"temperature": 0.0}),
        # Where the temperature comes last, the entropy is that of what the filters keep: here that of two equal tokens.
        (
            logs(0.375, 0.375, 0.25),
            {"temperature": 1.0, "dynatemp_range": 0.5, "top_k": 2, "order": ("top_k", "temperature")},
            {"temperature": 1.5, "top_k": 2},
        ),
    ],
    ids=str,
)
def test_dynamic_temperature_at_its_boundaries(module, row, given, same):
    assert_same(everything(module, row, **given), everything(module, row, **same))


@both
def test_a_dynamic_temperature_needs_its_step(module):
    with pytest.raises(ValueError, match="dynatemp_range must be off where the order has no step for it"):
        module.sample(ROW, dynatemp_range=0.5, order=("top_k",))
    module.sample(ROW, dynatemp_exponent=0.5, order=("top_k",))


@dtypes
@given(
    row=any_rows,
    filters=FILTERS,
    temperature=st.floats(0.1, 10),
    spread=RANGES,
    exponent=EXPONENTS,
    order=st.sampled_from([None, "llama.cpp", ("xtc", "typical_p", "temperature", "top_p", "top_k")]),
)
def test_dynamic_temperature_of_kernels(dtype, row, filters, temperature, spread, exponent, order):
    row = cast(row, dtype)
    given = {"temperature": temperature, "dynatemp_range": spread, "dynatemp_exponent": exponent, "order": order}
    assert_kernels_agree(row, **filters, **given)


# ---- smoothing ---------------------------------------------------------------------------------------------------------


@both
def test_smoothing_is_that_of_text_generation_webui(module):
    rng = np.random.default_rng(6)
    for _ in range(200):
        row = (rng.standard_normal(rng.integers(2, 200)) * 2).astype(np.float32)
        factor, curve, temperature = rng.uniform(0.01, 1), rng.uniform(1, 3), rng.uniform(0.5, 2)
        difference = row.astype(np.float64) - row.max()  # QuadraticSamplingLogitsWarper
        k, s = (3 - curve) / 2, (curve - 1) / 2
        want = softmax((-(k * factor * difference**2) + s * factor * difference**3) / temperature)
        ids, probs = module.candidates(row, temperature=temperature, smoothing_factor=factor, smoothing_curve=curve)
        np.testing.assert_allclose(probs, want[ids], rtol=2e-4, atol=1e-9)


@both
@pytest.mark.parametrize(
    ("row", "given", "same"),
    [
        (np.float32([5, 3, 4, -INF]), {"smoothing_factor": 0.5}, np.float32([5, 3, 4.5, -INF])),
        (np.float32([5, 3, 4, -INF]), {"smoothing_factor": 0.5, "smoothing_curve": 3.0}, np.float32([5, 1, 4.5, -INF])),
        (np.float32([5, 3, 4, -INF]), {"smoothing_factor": 0.5, "smoothing_curve": 2}, np.float32([5, 2, 4.5, -INF])),
        (np.float32([5, 3, 4]), {"smoothing_factor": 0.0, "smoothing_curve": 3.0}, np.float32([5, 3, 4])),
        (np.float32([5, 3, 4]), {"smoothing_factor": None, "smoothing_curve": None}, np.float32([5, 3, 4])),
        # What overflows becomes the smallest number, and is not banned. A factor below float32 makes all tokens alike.
        (
            np.float32([0, FLOAT32_MAX, 1e30]),
            {"smoothing_factor": 1.0},
            np.float32([-FLOAT32_MAX, FLOAT32_MAX, -FLOAT32_MAX]),
        ),
        (np.float32([0, 3, -INF]), {"smoothing_factor": 1e-50}, np.float32([3, 3, -INF])),
        # The biases come first.
        (np.float32([5, 3, 4]), {"smoothing_factor": 0.5, "logit_bias": {1: 5.0}}, np.float32([3.5, 8, 0])),
    ],
    ids=str,
)
def test_smoothing_at_its_boundaries(module, row, given, same):
    for filters in ({}, {"top_k": 2}, {"top_p": 0.7, "temperature": 2.0}):
        got, want = everything(module, row, **given, **filters), everything(module, same, **filters)
        assert_same(got[:2] + got[3:], want[:2] + want[3:])
        assert_same(got[2], np.where(want[2] == -INF, np.float32(-INF), row))  # the caller's own logits


@both
def test_a_greedy_token_is_that_without_smoothing(module):
    row = np.float32([100.0, 100.00001])
    assert module.candidates(row, smoothing_factor=0.1)[0].tolist() == [0, 1]  # they are equal now
    assert module.sample(row, smoothing_factor=0.1, temperature=0) == 1


def test_smoothing_never_changes_the_order():
    rng = np.random.default_rng(2)
    row = np.sort(np.exp(rng.uniform(-80, 80, 3000)).astype(np.float32) * rng.choice([-1, 1], 3000).astype(np.float32))
    for factor in (1e-30, 1e-3, 0.3, 1e30):
        for curve in (1.0, 1.7, 3.0):
            smoothed = reference.filters.smooth(row, factor, curve)
            assert (smoothed[1:] >= smoothed[:-1]).all()
            assert smoothed[-1] == row[-1]


@dtypes
@given(
    row=any_rows,
    filters=FILTERS,
    factor=FACTORS,
    curve=st.floats(1, 3),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 30.0]),
)
def test_smoothing_of_kernels(dtype, row, filters, factor, curve, temperature):
    row = cast(row, dtype)
    given = {"smoothing_factor": factor, "smoothing_curve": curve, "temperature": temperature}
    assert_kernels_agree(row, **filters, **given)


@dtypes
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_smoothing_of_edited_rows(kind, dtype):
    rng = np.random.default_rng(4)
    for size in (1, 63, 65, 5000):
        row = make_rows(rng, kind, 1, size)
        edits = one_row(make_edits(rng, row), 0)
        (row,) = cast(row, dtype)
        assert_kernels_agree(row, **edits, smoothing_factor=0.3, smoothing_curve=1.5, top_p=0.9)


# ---- mirostat ----------------------------------------------------------------------------------------------------------


def kept_by_mirostat_v2(probs, mu):
    """Return how many tokens llama_sampler_mirostat_v2 keeps of sorted probabilities, and how close the decision was."""
    surprises = -np.log2(probs)
    beyond = np.flatnonzero(surprises > mu)
    return max(1, int(beyond[0]) if len(beyond) else len(probs)), np.abs(surprises - mu).min()


def kept_by_mirostat_v1(probs, mu):
    """Return how many tokens llama_sampler_mirostat keeps of sorted probabilities, and how close the decision was."""
    places = np.arange(min(len(probs), 100) - 1)
    t = np.log((places + 2) / (places + 1))
    s = (t * np.log(probs[places] / probs[places + 1])).sum() / (t * t).sum()
    k = ((s - 1) * 2**mu / (1 - len(probs) ** (1 - s))) ** (1 / s)
    return min(max(int(k), 1), len(probs)), abs(k - round(k)) / max(k, 1)


@both
@pytest.mark.parametrize(("version", "formula"), [(1, kept_by_mirostat_v1), (2, kept_by_mirostat_v2)])
def test_mirostat_is_that_of_llama_cpp(module, version, formula):
    rng, sizes = np.random.default_rng(9), []
    for _ in range(300):
        row = (rng.standard_normal(rng.integers(2, 1500)) * rng.uniform(0.5, 4)).astype(np.float32)
        mu, temperature = rng.uniform(0, 12), rng.uniform(0.5, 2)
        probs = np.sort(softmax(row.astype(np.float64) / temperature))[::-1]
        want, nearness = formula(probs, mu)
        if nearness < 1e-5:
            continue
        ids, _ = module.candidates(row, temperature=temperature, mirostat=version, mirostat_mu=mu)
        assert len(ids) == want
        sizes.append(want)
    assert len(sizes) > 200
    assert len(set(sizes)) > 50


@both
@pytest.mark.parametrize(
    ("row", "given", "want"),
    [
        # The surprises are 1, 2, 3 and 3 bits.
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 3.0}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 2.99}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 2.0}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 1.99}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 0.5}, [0]),  # one token stays
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": -5.0}, [0]),
        (logs(0.4, 0.4, 0.2), {"mirostat": 2, "mirostat_mu": -1e30}, [0, 1]),  # and so does what ties with it
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_tau": 1.0}, [0, 1]),  # mu is 2 at first
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_tau": 1.0, "mirostat_mu": None}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 1.5, "top_k": 2}, [0]),  # 2/3 and 1/3: 1.58 bits
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 2, "mirostat_mu": 1.6, "top_k": 2}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 0, "mirostat_mu": 0.0}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": None, "mirostat_mu": 0.0}, [0, 1, 2, 3]),
        (np.float32([0, -INF, 0]), {"mirostat": 2, "mirostat_mu": 1.0}, [0, 2]),
        (np.float32([0, -100]), {"mirostat": 2, "mirostat_mu": 1e30}, [0]),  # token 1 has no mass
        (np.float32([7.0]), {"mirostat": 1, "mirostat_mu": -1e30}, [0]),
        (np.float32([7.0, -INF]), {"mirostat": 1, "mirostat_mu": 3.0}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 1, "mirostat_mu": -1e30}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"mirostat": 1, "mirostat_mu": 1e30}, [0, 1, 2, 3]),
        (
            np.zeros(9, np.float32),
            {"mirostat": 1, "mirostat_mu": 3.1},
            list(range(9)),
        ),  # s is 0: all or one, at log2(8)
        (np.zeros(9, np.float32), {"mirostat": 1, "mirostat_mu": 2.9}, [0]),
    ],
    ids=str,
)
def test_mirostat_at_its_boundaries(module, row, given, want):
    assert module.candidates(row, **given)[0].tolist() == want


@both
def test_zipf_with_an_exponent_of_1(module):
    """There the factor of version 1 is 1 / ln N, and k is 2**mu / ln N."""
    row = -np.log(np.arange(1, 1001)).astype(np.float32)
    for mu in (4.0, 8.0, 11.0):
        ids, _ = module.candidates(row, mirostat=1, mirostat_mu=mu)
        assert abs(len(ids) - 2**mu / math.log(1000)) < 1.01


@dtypes
@pytest.mark.parametrize("version", [1, 2])
@given(row=any_rows, filters=FILTERS, mu=MUS, temperature=st.floats(0.1, 10))
def test_mirostat_of_kernels(dtype, version, row, filters, mu, temperature):
    row = cast(row, dtype)
    given = {"mirostat": version, "mirostat_mu": mu, "temperature": temperature}
    assert_kernels_agree(row, **filters, **given)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_mirostat_of_long_rows(kind, version):
    (row,) = make_rows(np.random.default_rng(3), kind, 1, 20_011)
    for mu in (1.0, 9.0, 13.0, 14.3):
        for filters in ({}, {"top_p": 0.99}, {"min_p": 1e-9}, {"xtc_probability": 1.0, "xtc_threshold": 1e-4}):
            assert_kernels_agree(row, **filters, mirostat=version, mirostat_mu=mu, temperature=3.0)


def surprise_of(row, token, **parameters):
    """Return the surprise of a token among those that the reference keeps, by its masses."""
    ids, probs = reference.candidates(row, **parameters)
    return -math.log2(probs[ids.tolist().index(token)])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["normal", "banned", "few values", "peaked"])
@pytest.mark.parametrize("size", [5, 1000, 20_011])
def test_a_sampler_corrects_the_aim(version, kind, size):
    given = {"mirostat": version, "mirostat_tau": 3.0, "mirostat_eta": 0.5, "temperature": 2.0, "xtc_probability": 0.5}
    sampler = Sampler(**given, seed=4)
    mu = sampler.mirostat_mu
    assert mu == 6.0
    for position, row in enumerate(make_rows(np.random.default_rng(size), kind, 12, size)):
        call = {**given, "mirostat_mu": mu, "seed": 4, "position": position}
        token = sampler(row)
        assert type(token) is int
        assert token == reference.sample(row, **call)
        mu -= 0.5 * (surprise_of(row, token, **call) - 3.0)
        assert sampler.mirostat_mu == pytest.approx(mu, abs=1e-9)
        mu = sampler.mirostat_mu
    assert mu != 6.0


@pytest.mark.parametrize("size", [5, 1000, 20_011])
def test_the_aim_where_a_later_step_drops_tokens(size):
    """The surprise is that among the tokens which are left, however they were found."""
    row = make_rows(np.random.default_rng(size), "normal", 1, size)[0]
    given = {"mirostat": 2, "xtc_probability": 1.0, "xtc_threshold": 1e-3, "order": ("temperature", "mirostat", "xtc")}
    sampler = Sampler(**given, mirostat_eta=1.0, seed=4)
    sampler.mirostat_mu = 30.0
    token = sampler(row)
    surprise = surprise_of(row, token, **given, mirostat_mu=30.0, seed=4)
    assert sampler.mirostat_mu == pytest.approx(30.0 - (surprise - 5.0), abs=1e-9)


def test_a_text_has_the_surprise_that_mirostat_aims_at():
    row = (np.random.default_rng(0).standard_normal(5000) * 1.5).astype(np.float32)
    for version in (1, 2):
        for tau in (2.0, 5.0, 8.0):
            sampler = Sampler(mirostat=version, mirostat_tau=tau, mirostat_eta=0.1, seed=1)
            surprises = []
            for _ in range(800):
                before = sampler.mirostat_mu
                sampler(row)
                surprises.append(tau + (before - sampler.mirostat_mu) / 0.1)
            assert np.mean(surprises[200:]) == pytest.approx(tau, abs=0.15)


def test_a_batch_has_an_aim_for_each_row():
    rows = (np.random.default_rng(1).standard_normal((3, 200)) * 2).astype(np.float32)
    sampler = Sampler(mirostat=2, mirostat_tau=2.0, seed=9)
    alone = [Sampler(mirostat=2, mirostat_tau=2.0, seed=9, stream=b) for b in range(3)]
    for _ in range(5):
        assert sampler(rows).tolist() == [one(row) for one, row in zip(alone, rows, strict=True)]
        assert sampler.mirostat_mu.tolist() == [one.mirostat_mu for one in alone]
    with pytest.raises(ValueError, match="mirostat_mu must have one value for each of the 2 rows, got 3"):
        sampler(rows[:2])
    assert sampler.position == 5


def test_the_aim_is_part_of_the_state():
    sampler = Sampler(mirostat=2, mirostat_tau=2.0, seed=9)
    row = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    for _ in range(3):
        sampler(row)
    for other in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
        assert other.mirostat_mu == sampler.mirostat_mu != 4.0
    sampler.mirostat_mu = 1.5
    assert sampler(row) == toksample.sample(row, mirostat=2, mirostat_mu=1.5, seed=9, position=3)
    aim = sampler.mirostat_mu
    with pytest.raises(ValueError, match="logits must be finite"):
        sampler(np.float32([np.nan, 1]))
    assert sampler.mirostat_mu == aim
    sampler.reset()
    assert sampler.mirostat_mu == 4.0
    plain = Sampler(seed=1)
    plain(row)
    assert plain.mirostat_mu == 10.0


# ---- errors ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *[
            (name, value, "in [0, 1e30]")
            for name in ("dynatemp_range", "dynatemp_exponent")
            for value in (-0.1, math.nan, INF)
        ],
        *[("mirostat", value, "0, 1 or 2") for value in (-1, 3)],
        *[("mirostat_tau", value, "in [0, 1000]") for value in (-0.1, 1000.1, math.nan)],
        *[("mirostat_eta", value, "in [0, 1]") for value in (-0.1, 1.1, math.nan)],
        *[("smoothing_factor", value, "in [0, 1e30]") for value in (-0.1, 1.1e30, math.nan)],
        *[("smoothing_curve", value, "in [1, 3]") for value in (0.9, 3.1, math.nan)],
        *[("mirostat_mu", value, "in [-1e30, 1e30]") for value in (-1.1e30, math.nan, INF)],
    ],
)
def test_numbers_out_of_range(module, name, value, rule):
    text = f"{name} must be {rule}, got {value}"
    for logits in (ROW, np.float64(ROW), np.tile(ROW, (2, 1))):
        with pytest.raises(ValueError, match=re.escape(text)):
            module.sample(logits, **{name: value})
    if name != "mirostat_mu":
        with pytest.raises(ValueError, match=re.escape(text)):
            SamplingParams(**{name: value})


@both
def test_each_row_has_its_own(module):
    rows = (np.random.default_rng(7).standard_normal((3, 300)) * 2).astype(np.float32)
    given = {
        "mirostat": [0, 1, 2],
        "mirostat_mu": np.array([1.0, 5.0, 3.0]),
        "dynatemp_range": [0.5, 0.0, 0.7],
        "smoothing_factor": [0.0, 0.2, 0.1],
        "smoothing_curve": [1.0, 2.0, 3.0],
    }
    masked, tokens = module.mask_logits(rows, **given, seed=1), module.sample(rows, **given, seed=1)
    for b, row in enumerate(rows):
        alone = {name: value[b] for name, value in given.items()}
        assert_same(masked[b], module.mask_logits(row, **alone, seed=1))
        assert tokens[b] == module.sample(row, **alone, seed=1, stream=b)
    with pytest.raises(ValueError, match="mirostat_mu must have one value for each of the 3 rows, got 2"):
        module.sample(rows, mirostat=2, mirostat_mu=[1.0, 2.0])
    with pytest.raises(TypeError, match="mirostat_mu must be a number"):
        module.sample(ROW, mirostat=2, mirostat_mu=[1.0])
