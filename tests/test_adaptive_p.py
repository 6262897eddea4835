"""Adaptive-p: the masses that it gives to the tokens that are kept, and the average that a sampler keeps."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import ADAPTIVE_TARGETS, DTYPES, KINDS, assert_same, cast, make_rows, ordered_params
from rows import rows as any_rows

import toksample
from toksample import Sampler, SamplingParams, reference

INF = math.inf
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
ROW = np.float32([1.0, 3.0, 2.0, -1.0])
TARGETS = st.one_of(st.sampled_from(ADAPTIVE_TARGETS), st.floats(0, 1))


def everything(module, logits, **parameters):
    """Return a module's answers for one row: the candidates, the masked logits, and a few draws."""
    drawn = [module.sample(logits, **parameters, seed=seed) for seed in range(3)]
    ids, probs = module.candidates(logits, **parameters, seed=1)
    return ids, probs, module.mask_logits(logits, **parameters, seed=1), np.array(drawn)


def assert_kernels_agree(row, **parameters):
    assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


def logs(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities)).astype(np.float32)


def adaptive_p(probs, target, average):
    """Return what llama_sampler_adaptive_p_apply makes of probabilities, in float64."""
    adapted = min(max(2 * target - average, 0.0), 1.0)
    distances = np.abs(probs - adapted) / 0.3
    logits = 5.0 - 10.0 * distances * distances / (1.0 + distances)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@both
def test_the_probabilities_are_those_of_llama_cpp(module):
    rng = np.random.default_rng(5)
    for _ in range(300):
        row = (rng.standard_normal(rng.integers(1, 1000)) * rng.uniform(0.5, 6)).astype(np.float32)
        temperature, target, average = rng.uniform(0.3, 2), rng.uniform(0, 1), rng.uniform(0, 1)
        given = {"temperature": temperature, "min_p": rng.choice([0.0, 0.02]), "adaptive_target": target}
        ids, probs = module.candidates(row, **given, adaptive_average=average)
        x = row[ids].astype(np.float64) / temperature
        before = np.exp(x - x.max())
        want = adaptive_p(before / before.sum(), target, average)
        assert np.abs(probs - want).sum() / 2 < 2e-6


@both
@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"adaptive_target": 0.5}, (0.5, 0.5, 0.0)),  # the center is 0.5, of which the first is 0.5 and the others 0.25
        ({"adaptive_target": 0.5, "adaptive_average": 0.5}, (0.5, 0.5, 0.0)),
        ({"adaptive_target": 0.5, "adaptive_average": 1.0}, (0.5, 0.5, 0.5)),  # the center is 0
        ({"adaptive_target": 0.5, "adaptive_average": 0.0}, (0.5, 0.5, 1.0)),  # the center is 1
        ({"adaptive_target": 0.9, "adaptive_average": 0.3}, (0.5, 0.5, 1.0)),  # which is the largest
        ({"adaptive_target": 0.1, "adaptive_average": 0.7}, (0.5, 0.5, 0.0)),
    ],
)
def test_the_center_by_hand(module, given, want):
    ids, probs = module.candidates(logs(0.5, 0.25, 0.25), **given)
    assert ids.tolist() == [0, 1, 2]  # nothing is dropped, and the order stays that of the logits
    target = given["adaptive_target"]
    center = min(max(2 * target - given.get("adaptive_average", target), 0), 1)
    want = adaptive_p(np.array([0.5, 0.25, 0.25]), center, center)
    assert probs == pytest.approx(want, abs=1e-6)


@both
def test_the_boundaries(module):
    row = logs(0.5, 0.25, 0.125, 0.125)
    for off in (-1, -1.0, None):
        assert_same(module.candidates(row, adaptive_target=off, adaptive_average=0.3), module.candidates(row))
    for target in (0.0, 0.5, 1.0):
        assert module.candidates(np.float32([7.0]), adaptive_target=target)[1].tolist() == [1.0]
        assert module.candidates(np.zeros(8, np.float32), adaptive_target=target)[1].tolist() == [0.125] * 8
        assert module.candidates(row, temperature=0, adaptive_target=target)[0].tolist() == [0]
        assert module.candidates(np.float32([0, -INF, 0]), adaptive_target=target)[0].tolist() == [0, 2]
        assert_same(module.mask_logits(row, top_k=2, adaptive_target=target), module.mask_logits(row, top_k=2))
    # A token without a mass gets one, because its probability of 0 is as near to the target as that of others is.
    ids, probs = module.candidates(np.float32([0, -100]), adaptive_target=0.0)
    assert ids.tolist() == [0, 1]
    assert probs[1] > 0.999
    assert module.candidates(np.float32([0, -100]), adaptive_target=0.5)[1].tolist() == [0.5, 0.5]


@both
def test_it_comes_last_in_any_order(module):
    row = np.random.default_rng(2).standard_normal(300).astype(np.float32)
    given = {"temperature": 0.7, "top_p": 0.9, "adaptive_target": 0.02}
    want = module.candidates(row, **given)
    for order in (("temperature", "top_p", "adaptive_p"), ("adaptive_p", "temperature", "top_p")):
        assert_same(module.candidates(row, **given, order=order), want)
    last = module.candidates(row, **given, order=("adaptive_p", "top_p", "temperature"))
    assert_same(last, module.candidates(row, **given, order=("top_p", "temperature", "adaptive_p")))
    assert len(last[0]) != len(want[0])


@pytest.mark.parametrize("dtype", DTYPES)
@given(row=any_rows, params=ordered_params, target=TARGETS, average=TARGETS)
def test_adaptive_p_of_kernels(dtype, row, params, target, average):
    order = params.get("order")
    if order is not None and "adaptive_p" not in order:
        params = params | {"order": (*order, "adaptive_p")}
    assert_kernels_agree(cast(row, dtype), **(params | {"adaptive_target": target, "adaptive_average": average}))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_adaptive_p_of_long_rows(kind):
    (row,) = make_rows(np.random.default_rng(3), kind, 1, 20_011)
    for target in (0.0, 1e-4, 0.4):
        for filters in (
            {},
            {"top_p": 0.99},
            {"min_p": 1e-9},
            {"typical_p": 0.9},
            {"xtc_probability": 1.0, "xtc_threshold": 1e-4},
            {"min_tokens_to_keep": 9_000, "top_k": 7_000},
        ):
            assert_kernels_agree(row, **filters, adaptive_target=target, temperature=3.0)


def test_the_draws_have_the_probabilities():
    row = logs(0.5, 0.3, 0.15, 0.05)
    given = {"adaptive_target": 0.3, "adaptive_average": 0.4}
    tokens = toksample.sample(np.tile(row, (40_000, 1)), **given, seed=1)
    shares = np.bincount(tokens, minlength=4) / 40_000
    assert shares == pytest.approx(toksample.candidates(row, **given)[1][[0, 1, 2, 3]], abs=0.01)


# ---- the state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "banned", "few values", "peaked"])
@pytest.mark.parametrize("size", [5, 1000, 20_011])
def test_a_sampler_keeps_the_average(kind, size):
    given = {"adaptive_target": 0.3, "temperature": 0.8, "min_p": 0.01, "xtc_probability": 0.5}
    sampler = Sampler(**given, adaptive_decay=0.75, seed=4)
    average = sampler.adaptive_average
    assert average == 0.3
    for position, row in enumerate(make_rows(np.random.default_rng(size), kind, 12, size)):
        call = {**given, "seed": 4, "position": position}
        token = sampler(row)
        assert type(token) is int
        assert token == reference.sample(row, **call, adaptive_average=average)
        ids, probs = reference.candidates(row, **call | {"adaptive_target": -1})
        average = 0.75 * average + 0.25 * probs[ids.tolist().index(token)]
        assert sampler.adaptive_average == average
        assert type(average) is np.float64
    assert average != 0.3


def test_a_text_has_the_probability_that_adaptive_p_aims_at():
    ratios = np.random.default_rng(0).uniform(0.3, 0.8, (1000, 1))  # of a probability to the next one
    rows = (np.log(ratios) * np.arange(30)).astype(np.float32)
    averages = []
    for target in (0.1, 0.2, 0.3, 0.4):
        sampler = Sampler(adaptive_target=target, min_p=0.05, seed=1)
        averages.append(np.mean([sampler.adaptive_average for row in rows if sampler(row) >= 0]))
    assert averages == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.05)


def test_a_batch_has_an_average_for_each_row():
    rows = (np.random.default_rng(1).standard_normal((3, 200)) * 2).astype(np.float32)
    sampler = Sampler(adaptive_target=0.2, seed=9)
    alone = [Sampler(adaptive_target=0.2, seed=9, stream=b) for b in range(3)]
    for _ in range(5):
        assert sampler(rows).tolist() == [one(row) for one, row in zip(alone, rows, strict=True)]
        assert sampler.adaptive_average.tolist() == [one.adaptive_average for one in alone]
    with pytest.raises(ValueError, match="adaptive_average must have one value for each of the 2 rows, got 3"):
        sampler(rows[:2])
    assert sampler.position == 5


def test_the_average_is_part_of_the_state():
    sampler = Sampler(adaptive_target=0.2, seed=9)
    row = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    for _ in range(3):
        sampler(row)
    for other in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
        assert other.adaptive_average == sampler.adaptive_average != 0.2
        assert other(row) == toksample.sample(
            row, adaptive_target=0.2, adaptive_average=sampler.adaptive_average, seed=9, position=3
        )
    sampler.adaptive_average = 0.75
    assert sampler(row) == toksample.sample(row, adaptive_target=0.2, adaptive_average=0.75, seed=9, position=3)
    average = sampler.adaptive_average
    with pytest.raises(ValueError, match="logits must be finite"):
        sampler(np.float32([np.nan, 1]))
    assert sampler.adaptive_average == average
    sampler.reset()
    assert sampler.adaptive_average == 0.2
    for off in (Sampler(seed=1), Sampler(seed=1, mirostat=2)):
        off(row)
        assert off.adaptive_average is None


def test_mirostat_and_adaptive_p_have_their_states_side_by_side():
    row = (np.random.default_rng(1).standard_normal(500) * 2).astype(np.float32)
    given = {"mirostat": 2, "mirostat_tau": 2.0, "adaptive_target": 0.1}
    sampler = Sampler(**given, seed=2)
    for position in range(6):
        state = {"mirostat_mu": sampler.mirostat_mu, "adaptive_average": sampler.adaptive_average}
        call = {**given, **state, "seed": 2, "position": position}
        token = sampler(row)
        assert token == reference.sample(row, **call)
        ids, probs = reference.candidates(row, **call | {"adaptive_target": None})
        probability = probs[ids.tolist().index(token)]
        assert sampler.mirostat_mu == pytest.approx(state["mirostat_mu"] - 0.1 * (-math.log2(probability) - 2.0))
        assert sampler.adaptive_average == 0.9 * state["adaptive_average"] + (1 - 0.9) * probability


def test_a_token_without_a_mass_has_a_probability_of_0():
    sampler = Sampler(adaptive_target=0.0, mirostat=1, mirostat_eta=1.0, seed=0)
    sampler.mirostat_mu = 100.0  # so that mirostat keeps all tokens
    assert sampler(np.float32([0, -100, -100])) in (1, 2)
    assert sampler.adaptive_average == 0.0
    assert sampler.mirostat_mu == 100.0 - (41.0 - 5.0)  # it surprises as one with a mass of 1


# ---- errors ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *[("adaptive_target", value, "in [0, 1], or -1") for value in (-0.5, 1.1, math.nan)],
        *[("adaptive_decay", value, "in [0, 1]") for value in (-0.1, 1.1, math.nan)],
        *[("adaptive_average", value, "in [0, 1]") for value in (-0.1, 1.1, math.nan)],
    ],
)
def test_numbers_out_of_range(module, name, value, rule):
    text = f"{name} must be {rule}, got {value}"
    for logits in (ROW, np.float64(ROW), np.tile(ROW, (2, 1))):
        with pytest.raises(ValueError, match=re.escape(text)):
            module.sample(logits, **{name: value})
    if name != "adaptive_average":
        with pytest.raises(ValueError, match=re.escape(text)):
            SamplingParams(**{name: value})


@both
def test_each_row_has_its_own(module):
    rows = (np.random.default_rng(7).standard_normal((3, 300)) * 2).astype(np.float32)
    given = {"adaptive_target": [0.5, None, 0.1], "adaptive_average": np.array([0.25, 0.5, 0.0])}
    tokens = module.sample(rows, **given, seed=1)
    for b, row in enumerate(rows):
        alone = {name: value[b] for name, value in given.items()}
        assert tokens[b] == module.sample(row, **alone, seed=1, stream=b)
    with pytest.raises(ValueError, match="adaptive_average must have one value for each of the 3 rows, got 2"):
        module.sample(rows, adaptive_target=0.5, adaptive_average=[0.5, 1.0])
    with pytest.raises(TypeError, match="adaptive_average must be a number"):
        module.sample(ROW, adaptive_target=0.5, adaptive_average=[0.5])
