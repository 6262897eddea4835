"""The filters after min-p, penalties, biases and bitmasks, compared with independent formulas, and kernels with reference."""

import dataclasses
import inspect
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import (
    ADDED_PENALTIES,
    DTYPES,
    EPSILON_CUTOFFS,
    ETA_CUTOFFS,
    FLOAT32_MAX,
    KINDS,
    REPETITION_PENALTIES,
    TFS,
    TOP_AS,
    TOP_HS,
    TOP_N_SIGMAS,
    TYPICAL_PS,
    assert_same,
    cast,
    generators,
    make_edits,
    make_rows,
    one_row,
)
from rows import rows as any_rows

import toksample
from toksample import SamplingParams, reference
from toksample._parameters import DEFAULTS, INPUTS, NAMES, PARAMETERS, RULES, Parameters, TextParameters

INF = math.inf
dtypes = pytest.mark.parametrize("dtype", DTYPES)
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
ROW = np.float32([1.0, 3.0, 2.0, -1.0])


def everything(module, logits, **parameters):
    """Return a module's answers for these parameters: the candidates of one row, the masked logits, and a few draws."""
    masked = module.mask_logits(logits, **parameters)
    drawn = [module.sample(logits, **parameters, seed=seed) for seed in range(3)]
    if np.ndim(masked) == 2:
        return masked, np.array(drawn)
    return *module.candidates(logits, **parameters), masked, np.array(drawn)


def kept(module, logits, **parameters):
    """Check that all functions agree, and return the ids that survive, in the order of the candidates."""
    ids, _ = module.candidates(logits, **parameters)
    masked = module.mask_logits(logits, **parameters)
    assert np.flatnonzero(masked != -np.inf).tolist() == sorted(ids.tolist())
    assert module.sample(logits, **parameters, seed=1) in ids
    return ids.tolist()


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_parameter_has_its_entry_everywhere():
    fields = {field.name: field for field in dataclasses.fields(SamplingParams)}
    of_a_call = {"position", "mirostat_mu", "adaptive_average", "prompt_ids", "output_ids", "bitmask"}
    assert set(TextParameters.__annotations__) == set(fields)
    assert set(Parameters.__annotations__) == set(NAMES) == set(DEFAULTS) == set(fields) | of_a_call
    assert set(PARAMETERS) == set(NAMES) - set(INPUTS) - {"order"}
    assert set(RULES) < set(INPUTS)
    for name, parameter in PARAMETERS.items():
        assert DEFAULTS[name] is None or parameter.holds(DEFAULTS[name])
        assert parameter.off is None or parameter.off == DEFAULTS[name]
        assert (parameter.metavar is None) == (parameter.meaning == "")


@pytest.mark.parametrize("name", ["sample", "candidates", "mask_logits"])
def test_signatures_show_the_parameters(name):
    parameters, same = (inspect.signature(getattr(module, name)).parameters for module in (toksample, reference))
    assert parameters == same
    assert list(parameters)[: len(NAMES) + 1] == ["logits", *NAMES]
    assert {name: parameters[name].default for name in NAMES} == DEFAULTS
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(parameters)[1:])


@both
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("topp", "; did you mean 'top_p'?"),
        ("repeat_penalty", "; did you mean 'repetition_penalty'?"),
        ("temp", "; did you mean 'temperature'?"),
        ("repeat_last_n", "; did you mean 'penalty_window'?"),
        ("watermark", ""),
    ],
)
def test_names_that_are_not_parameters(module, name, hint):
    for function in (module.sample, module.candidates, module.mask_logits):
        with pytest.raises(TypeError) as info:
            function(ROW, **{name: 1})
        assert str(info.value) == f"got an unexpected keyword argument {name!r}{hint}"


# ---- typical_p -------------------------------------------------------------------------------------------------------


def typical_of_transformers(row, p):
    """Return what TypicalLogitsWarper of transformers keeps, in float64, and how close the decision was."""
    log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
    entropy = -(np.exp(log_p) * log_p).sum()
    distance = np.abs(-log_p - entropy)
    by_distance = np.argsort(distance, kind="stable")
    sums = np.exp(log_p)[by_distance].cumsum()
    last = min(np.count_nonzero(sums < p), len(row) - 1)
    ids = np.flatnonzero(distance <= distance[by_distance[last]])
    gaps = np.abs(np.delete(distance, by_distance[last]) - distance[by_distance[last]])
    return ids.tolist(), min(np.abs(sums - p).min(), gaps.min(initial=1.0))


def typical_of_llama_cpp(row, p):
    """Return what llama_sampler_typical keeps: the same, but tokens are added one by one, until the sum is above p."""
    probs = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    entropy = sum(-q * math.log(q) for q in probs)
    ids, total = [], 0.0
    for token in sorted(range(len(row)), key=lambda i: abs(-math.log(probs[i]) - entropy)):
        ids.append(token)
        total += probs[token]
        if total > p:
            break
    return sorted(ids)


@both
def test_typical_p_is_that_of_other_systems(module):
    rng, compared, without_best = np.random.default_rng(3), 0, 0
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 80)) * rng.uniform(0.3, 4)).astype(np.float32)
        p = rng.uniform(0.05, 0.99)
        want, nearness = typical_of_transformers(row.astype(np.float64), p)
        if nearness < 1e-5:
            continue
        assert sorted(kept(module, row, typical_p=p)) == want == typical_of_llama_cpp(row.astype(np.float64), p)
        compared += 1
        without_best += np.argmax(row) not in want
    assert compared > 300
    assert without_best > 30


def logs(*probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        # The surprises are 1, 2 and 2 bits, and the entropy is 1.5 bits. All distances are equal, so no token is dropped.
        (logs(0.5, 0.25, 0.25), {"typical_p": 0.1}, [0, 1, 2]),
        # The surprises are 1, 2, 3 and 3 bits, and the entropy is 1.75. The distances are 0.75, 0.25, 1.25 and 1.25.
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.0}, [1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.25}, [1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.26}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.75}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.76}, [0, 1, 2, 3]),
        (logs(0.125, 0.5, 0.125, 0.25), {"typical_p": 0.2}, [3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": None}, [0, 1, 2, 3]),
        # The other filter comes first, and leaves 2/3 and 1/3.
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.5, "top_k": 2}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"typical_p": 0.7, "top_p": 0.7}, [0, 1]),
        (np.zeros(70, np.float32), {"typical_p": 0.0}, list(range(70))),
        (np.float32([5.0]), {"typical_p": 0.0}, [0]),
        (np.float32([0, -INF, 0]), {"typical_p": 0.5}, [0, 2]),
        # Token 1 has no mass and is far from typical, so it is dropped unless the filter is off.
        (np.float32([0, -100]), {"typical_p": 1 - 2**-53}, [0]),
        (np.float32([0, -100]), {"typical_p": 1}, [0, 1]),
    ],
)
def test_typical_p_at_its_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


@dtypes
@given(row=any_rows, p=st.one_of(st.sampled_from(TYPICAL_PS), st.floats(0, 1)), temperature=st.floats(0.1, 10))
def test_typical_p_of_kernels(dtype, row, p, temperature):
    row = cast(row, dtype)
    for parameters in ({}, {"top_k": 40}, {"top_p": 0.9}):
        parameters |= {"typical_p": p, "temperature": temperature}
        assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


LONG_ROWS = {
    "all equal": np.full(20_000, 1.5, np.float32),
    "two values": np.arange(20_000, dtype=np.float32) % 2,
    "uniform": np.random.default_rng(5).random(20_000, np.float32),
    "normal": np.random.default_rng(6).normal(size=20_000).astype(np.float32),
    "rounded": np.random.default_rng(7).normal(size=20_000).astype(np.float32).round(1),
    "half banned": np.where(np.arange(20_000) % 2, np.random.default_rng(8).random(20_000, np.float32), -np.inf),
}
"""Rows of which typical_p keeps more tokens than it lists."""


@pytest.mark.parametrize("kind", LONG_ROWS)
@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_typical_p_of_long_rows(kind, p):
    for others in (
        {},
        {"top_p": 0.99},
        {"temperature": 3.0},
        {"xtc_probability": 1.0, "xtc_threshold": 1e-4},
        {"tfs": 0.9},
    ):
        parameters = {"typical_p": p} | others
        row = LONG_ROWS[kind].astype(np.float32)
        assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


# ---- epsilon_cutoff and top_a ----------------------------------------------------------------------------------------


def epsilon_of_transformers(probs, e):
    """Return what EpsilonLogitsWarper of transformers keeps, and the probability below which it drops tokens."""
    return np.flatnonzero((probs >= e) | (probs >= probs.max())).tolist(), e


def top_a_of_kobold(probs, a):
    """Return what sample_top_a (KoboldCpp) and TopALogitsWarper (KoboldAI) keep, and the least probability they keep."""
    return np.flatnonzero(probs >= probs.max() ** 2 * a).tolist(), probs.max() ** 2 * a


@both
@pytest.mark.parametrize(
    ("name", "formula"),
    [("epsilon_cutoff", epsilon_of_transformers), ("top_a", top_a_of_kobold)],
    ids=["epsilon", "top-a"],
)
def test_least_probabilities_are_those_of_other_systems(module, name, formula):
    rng, sizes = np.random.default_rng(8), []
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 2000)) * rng.uniform(0.3, 4)).astype(np.float32)
        value, exact = 10 ** rng.uniform(-5, 0), row.astype(np.float64)
        probs = np.exp(exact - exact.max()) / np.exp(exact - exact.max()).sum()
        want, least = formula(probs, value)
        if np.abs(probs / least - 1).min() < 1e-5:
            continue
        assert sorted(kept(module, row, **{name: value})) == want
        sizes.append(len(want))
    assert len(sizes) > 300
    assert len(set(sizes)) > 50


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.125}, [0, 1, 2, 3]),  # exactly epsilon is enough
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.126}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.25}, [0, 1]),
        (logs(0.25, 0.5, 0.125, 0.125), {"epsilon_cutoff": 0.251}, [1]),
        (logs(0.25, 0.5, 0.125, 0.125), {"epsilon_cutoff": 1.0}, [1]),  # the most probable token always stays
        (logs(0.25, 0.25, 0.25, 0.25), {"epsilon_cutoff": 1.0}, [0, 1, 2, 3]),  # and so do tokens that tie with it
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": None}, [0, 1, 2, 3]),
        # The probabilities are those of the tokens that are left: 2/3 and 1/3, and after typical_p only token 1.
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.33, "top_k": 2}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.34, "top_p": 0.75}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"epsilon_cutoff": 0.9, "typical_p": 0.1}, [1]),
        (np.float32([5.0]), {"epsilon_cutoff": 1.0}, [0]),
        (np.float32([0, -INF, 0]), {"epsilon_cutoff": 5e-324}, [0, 2]),
        (np.float32([0, -100]), {"epsilon_cutoff": 5e-324}, [0]),  # token 1 has no mass
        (np.float32([0, -100]), {"epsilon_cutoff": 0}, [0, 1]),
        # the limit is a times the square of 1/2
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.5}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.51}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 1.0}, [0, 1]),
        (logs(0.0625, 0.75, 0.1875), {"top_a": 1 / 3}, [1, 2]),
        (logs(0.0625, 0.75, 0.1875), {"top_a": 0.334}, [1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": None}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.74, "top_k": 2}, [0, 1]),  # 1/3 is 3/4 of 4/9
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.76, "min_p": 0.5}, [0]),
        # epsilon_cutoff leaves 2/3 and 1/3.
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.74, "epsilon_cutoff": 0.2}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_a": 0.76, "epsilon_cutoff": 0.2}, [0]),
        (np.float32([5.0]), {"top_a": 1.0}, [0]),
        (np.float32([5.0, 5.0, -INF]), {"top_a": 1.0}, [0, 1]),
        (np.float32([0, -100]), {"top_a": 5e-324}, [0]),
        (np.float32([0, -100]), {"top_a": 0}, [0, 1]),
    ],
)
def test_least_probabilities_at_their_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


@dtypes
@pytest.mark.parametrize(("name", "values"), [("epsilon_cutoff", EPSILON_CUTOFFS), ("top_a", TOP_AS)], ids=str)
@given(row=any_rows, data=st.data(), temperature=st.floats(0.1, 10))
def test_least_probabilities_of_kernels(dtype, name, values, row, data, temperature):
    row = cast(row, dtype)
    value = data.draw(
        st.one_of(st.sampled_from(values), st.floats(0, 1), st.floats(-9, 0).map(lambda power: 10**power))
    )
    for parameters in ({}, {"top_k": 40}, {"top_p": 0.9}, {"typical_p": 0.3}):
        parameters |= {name: value, "temperature": temperature}
        assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


# ---- top_n_sigma -----------------------------------------------------------------------------------------------------


def top_n_sigma_of_llama_cpp(row, n):
    """What llama_sampler_top_n_sigma keeps, in float64; and how near the decision is to another one."""
    logits = row[row > -np.inf].astype(np.float64)
    floor = logits.max() - n * logits.std()
    return np.flatnonzero(row >= floor).tolist(), np.abs(logits - floor).min()


@both
def test_top_n_sigma_is_that_of_llama_cpp(module):
    rng, sizes = np.random.default_rng(21), []
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 3000)) * rng.uniform(0.3, 9)).astype(np.float32)
        row[rng.random(len(row)) < rng.choice([0, 0.3])] = -np.inf
        if row.max() == -np.inf:
            continue
        n = rng.uniform(0.05, 4)
        want, nearness = top_n_sigma_of_llama_cpp(row, n)
        if (
            nearness <= n * 2.0**-11 + 1e-6
        ):  # each logit is rounded to 1/1024, and so sigma is off by at most half of that
            continue
        assert sorted(kept(module, row, top_n_sigma=n, temperature=rng.uniform(0.5, 2))) == want
        sizes.append(len(want))
    assert len(sizes) > 150
    assert len(set(sizes)) > 50


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        # The standard deviation of 1, 3, 2 and -1 is 1.479.
        (ROW, {"top_n_sigma": 0.67}, [1]),
        (ROW, {"top_n_sigma": 0.68}, [1, 2]),
        (ROW, {"top_n_sigma": 1.36}, [1, 2, 0]),
        (ROW, {"top_n_sigma": 2.7}, [1, 2, 0]),
        (ROW, {"top_n_sigma": 2.71}, [1, 2, 0, 3]),
        (ROW, {"top_n_sigma": 1e30}, [1, 2, 0, 3]),
        (ROW, {"top_n_sigma": 5e-324}, [1]),
        (ROW, {"top_n_sigma": 0}, [1, 2, 0, 3]),
        (ROW, {"top_n_sigma": None}, [1, 2, 0, 3]),
        (ROW, {"top_n_sigma": 0.67, "temperature": 100}, [1]),  # it looks at the logits
        (ROW, {"top_n_sigma": 2.0, "top_k": 2}, [1, 2]),  # 3 and 2 have 0.5, and 2 is exactly 2 of these below
        (ROW, {"top_n_sigma": 1.999, "top_k": 2}, [1]),
        (np.float32([0, 0, 0, 0, 1]), {"top_n_sigma": 1.0}, [4]),  # 0.4
        (np.float32([5.0]), {"top_n_sigma": 1.0}, [0]),
        (np.full(70, 2.5, np.float32), {"top_n_sigma": 5e-324}, list(range(70))),
        (np.float32([1.0, -INF, 1.0, 0.0]), {"top_n_sigma": 1.0}, [0, 2]),  # a banned token does not count
        (np.float32([-FLOAT32_MAX, FLOAT32_MAX]), {"top_n_sigma": 1e30}, [1]),  # what is far away counts as 1024 away
        (np.float32([0.0, -2000.0]), {"top_n_sigma": 3.90}, [0]),
        (np.float32([0.0, -2000.0]), {"top_n_sigma": 3.91}, [0, 1]),
        # typical_p drops the first token. The largest logit is then log(0.2), and log(0.15) is 2 standard deviations below it.
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_n_sigma": 1.9, "typical_p": 0.6}, [1, 2]),
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_n_sigma": 2.1, "typical_p": 0.6}, [1, 2, 3, 4]),
    ],
)
def test_top_n_sigma_at_its_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


@dtypes
@given(row=any_rows, n=st.one_of(st.sampled_from(TOP_N_SIGMAS), st.floats(0, 4)), temperature=st.floats(0.1, 10))
def test_top_n_sigma_of_kernels(dtype, row, n, temperature):
    row = cast(row, dtype)
    for parameters in ({}, {"top_k": 40}, {"top_p": 0.9}, {"typical_p": 0.3}):
        parameters |= {"top_n_sigma": n, "temperature": temperature}
        assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


# ---- eta_cutoff ------------------------------------------------------------------------------------------------------


def softmax(row):
    probs = np.exp(row.astype(np.float64) - row.max())
    return probs / probs.sum()


def entropy(probs):
    return -(probs[probs > 0] * np.log(probs[probs > 0])).sum()


def eta_of_transformers(row, e):
    """What EtaLogitsWarper of transformers keeps; and how near the decision is to another one."""
    probs = softmax(row)
    eta = min(e, math.sqrt(e) * math.exp(-entropy(probs)))
    return np.flatnonzero((probs >= eta) | (probs == probs.max())).tolist(), np.abs(probs / eta - 1).min()


@both
def test_eta_cutoff_is_that_of_transformers(module):
    rng, sizes, of_entropy = np.random.default_rng(31), [], 0
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 2000)) * rng.uniform(0.3, 4)).astype(np.float32)
        e = 10 ** rng.uniform(-5, 0)
        want, nearness = eta_of_transformers(row, e)
        if nearness < 1e-5:
            continue
        assert sorted(kept(module, row, eta_cutoff=e)) == want
        sizes.append(len(want))
        of_entropy += math.sqrt(e) * math.exp(-entropy(softmax(row))) < e
    assert len(sizes) > 300
    assert len(set(sizes)) > 50
    assert 100 < of_entropy < len(sizes)


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        # The entropy of these probabilities is 1.75 bits, and 2**-1.75 is 0.297: eta is 0.297 sqrt(e) for e above 0.088.
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.08}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.17}, [0, 1, 2, 3]),  # 0.1226
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.18}, [0, 1]),  # 0.1261
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.70}, [0, 1]),  # 0.2487
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.71}, [0]),  # 0.2505
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 1.0}, [0]),
        # 16 equal tokens have 4 bits. They stay even at 1, because eta is then 1/16 and a little more or less.
        (np.zeros(16, np.float32), {"eta_cutoff": 1.0}, list(range(16))),
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": None}, [0, 1, 2, 3]),
        # With top_k 2 the probabilities are 2/3 and 1/3, the entropy is 0.918 bits, and 2**-0.918 is 0.529.
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.39, "top_k": 2}, [0, 1]),  # 0.3304
        (logs(0.5, 0.25, 0.125, 0.125), {"eta_cutoff": 0.40, "top_k": 2}, [0]),  # 0.3346
        (np.float32([5.0]), {"eta_cutoff": 1.0}, [0]),
        (np.float32([0, -INF, 0]), {"eta_cutoff": 5e-324}, [0, 2]),
        (np.float32([0, -100]), {"eta_cutoff": 5e-324}, [0]),  # token 1 has no mass
        (np.float32([0, -100]), {"eta_cutoff": 0}, [0, 1]),
    ],
)
def test_eta_cutoff_at_its_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


# ---- tfs -------------------------------------------------------------------------------------------------------------


def tfs_of_llama_cpp(row, z):
    """What llama_sample_tail_free of llama.cpp and sample_tail_free of KoboldCpp keep; and how near another decision is."""
    ids = np.argsort(-row, kind="stable")
    probs = softmax(row)[ids]
    if len(ids) <= 2:
        return ids.tolist(), 1.0
    bends = np.abs(probs[:-2] - 2 * probs[1:-1] + probs[2:])
    shares = np.cumsum(bends) / bends.sum()
    count = next((i for i in range(1, len(shares)) if shares[i] > z), len(ids))
    return ids[:count].tolist(), np.abs(shares - z).min()


def tfs_of_text_generation_webui(row, z):
    """What TailFreeLogitsWarper keeps: one token more, and never the last token."""
    ids = np.argsort(-row, kind="stable")
    shares = np.cumsum(np.abs(np.diff(softmax(row)[ids], 2)))
    return ids[:-1][np.concatenate([[True], shares / shares[-1] <= z])].tolist()


@both
def test_tfs_is_that_of_other_systems(module):
    rng, sizes = np.random.default_rng(41), []
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 2000)) * rng.uniform(0.3, 4)).astype(np.float32)
        z = 1 - 10 ** rng.uniform(-3, 0)
        want, nearness = tfs_of_llama_cpp(row, z)
        if nearness < 1e-5 or len(np.unique(row)) < len(row):
            continue
        assert kept(module, row, tfs=z) == want
        if 1 < len(want) < len(row):
            assert tfs_of_text_generation_webui(row, z)[:-1] == want
        sizes.append(len(want))
    assert len(sizes) > 300
    assert len(set(sizes)) > 50


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        # The steps down are 1/4, 1/8, 1/16 and 0, the bends 2, 1 and 1 sixteenths: shares 1/2, 3/4 and 1.
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.0}, [0]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.4}, [0]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.74}, [0]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.76}, [0, 1]),
        (logs(0.0625, 0.25, 0.125, 0.5, 0.0625), {"tfs": 0.999}, [3, 1]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 1.0}, [0, 1, 2, 3, 4]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": None}, [0, 1, 2, 3, 4]),
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.0, "top_k": 3}, [0, 1, 2]),  # three tokens have one bend
        (logs(0.5, 0.25, 0.125, 0.0625, 0.0625), {"tfs": 0.0, "top_k": 4}, [0]),
        (np.zeros(70, np.float32), {"tfs": 0.0}, list(range(70))),  # there is no bend
        (np.float32([5.0]), {"tfs": 0.0}, [0]),
        (np.float32([5.0, 4.0]), {"tfs": 0.0}, [0, 1]),
        (np.float32([0, -INF, 0, -1]), {"tfs": 0.0}, [0, 2, 3]),
        (np.float32([0, -1, -100, -101, -102]), {"tfs": 0.9}, [0]),  # bends at 0 and 1 alone
        # Equal logits: the steps are 0, 0 and 1, so the bends are at 1.
        (np.float32([0, 0, 0, -100]), {"tfs": 0.5}, [0]),
        # After typical_p four tokens are left, without the first: the steps are 0, 0.05 and 0.
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"tfs": 0.6, "typical_p": 0.6}, [1]),
    ],
)
def test_tfs_at_its_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


# ---- top_h -----------------------------------------------------------------------------------------------------------


def top_h_of_transformers(row, h):
    """What TopHLogitsWarper of transformers keeps, in float64; and how near the decision is to another one."""
    ids = np.argsort(-row, kind="stable")[:100]
    probs = softmax(row[ids])
    running = np.cumsum(-probs * np.log(np.maximum(probs, 1e-300)))
    limit = entropy(probs) * h
    return ids[: max(1, np.count_nonzero(running <= limit))].tolist(), np.abs(running[:-1] - limit).min(initial=1.0)


@both
def test_top_h_is_that_of_transformers(module):
    rng, sizes = np.random.default_rng(51), []
    for _ in range(400):
        row = (rng.standard_normal(rng.integers(2, 2000)) * rng.uniform(0.3, 4)).astype(np.float32)
        h = rng.uniform(0.01, 1)
        want, nearness = top_h_of_transformers(row, h)
        if nearness < 1e-5:
            continue
        assert kept(module, row, top_h=h) == want
        sizes.append(len(want))
    assert len(sizes) > 300
    assert len(set(sizes)) > 40


@both
@pytest.mark.parametrize(
    ("row", "parameters", "want"),
    [
        # The parts of the entropy are 1/2, 1/2, 3/8 and 3/8 bits.
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 5e-324}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.57}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.58}, [0, 1]),  # 1 / 1.75 is 0.5714
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.78}, [0, 1]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.79}, [0, 1, 2]),  # 1.375 / 1.75 is 0.7857
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 1.0}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.0}, [0, 1, 2, 3]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": None}, [0, 1, 2, 3]),
        # With top_k 2 the parts are 0.390 and 0.528 bits.
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 0.99, "top_k": 2}, [0]),
        (logs(0.5, 0.25, 0.125, 0.125), {"top_h": 1.0, "top_k": 2}, [0, 1]),
        (np.zeros(300, np.float32), {"top_h": 1.0}, list(range(100))),
        (np.zeros(300, np.float32), {"top_h": 0.3}, list(range(30))),
        (np.zeros(30, np.float32), {"top_h": 1.0}, list(range(30))),
        (np.float32([5.0]), {"top_h": 0.5}, [0]),
        (np.float32([0, -INF, 0]), {"top_h": 1.0}, [0, 2]),
        (np.float32([0, -INF, 0]), {"top_h": 0.4}, [0]),
        # typical_p drops the first token. Of the others, the parts are 0.516, 0.516, 0.474 and 0.474 bits.
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_h": 0.52, "typical_p": 0.6}, [1]),
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_h": 0.53, "typical_p": 0.6}, [1, 2]),
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_h": 1.0, "typical_p": 0.6}, [1, 2, 3, 4]),
        (logs(0.3, 0.2, 0.2, 0.15, 0.15), {"top_h": 1.0, "typical_p": 0.4}, [1, 2]),
    ],
)
def test_top_h_at_its_boundaries(module, row, parameters, want):
    assert kept(module, row, **parameters) == want


@dtypes
@pytest.mark.parametrize(
    ("name", "values"), [("eta_cutoff", ETA_CUTOFFS), ("tfs", TFS), ("top_h", TOP_HS)], ids=["eta", "tfs", "top-h"]
)
@given(row=any_rows, data=st.data(), temperature=st.floats(0.1, 10))
def test_other_filters_of_kernels(dtype, name, values, row, data, temperature):
    row = cast(row, dtype)
    value = data.draw(st.one_of(st.sampled_from(values), st.floats(0, 1)))
    for parameters in ({}, {"top_k": 40}, {"top_p": 0.9}, {"typical_p": 0.3}):
        parameters |= {name: value, "temperature": temperature}
        assert_same(everything(toksample, row, **parameters), everything(reference, row, **parameters))


# ---- penalties -------------------------------------------------------------------------------------------------------


def clip(x):
    largest = np.finfo(type(x)).max
    return np.clip(x, -largest, largest)


def penalised(row, prompt, output, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0):
    """Apply the formulas of transformers (repetition) and of OpenAI and vLLM (the other two), token by token."""
    real = row.dtype.type
    row = row.copy()
    with np.errstate(all="ignore"):
        for token in set(prompt) | set(output):
            row[token] = clip(
                row[token] * real(repetition_penalty) if row[token] < 0 else row[token] / real(repetition_penalty)
            )
        for token, count in Counter(output).items():
            row[token] = clip(row[token] - real(frequency_penalty) * real(count))
        for token in set(output):
            row[token] = clip(row[token] - real(presence_penalty))
    return row


real_or_double = pytest.mark.parametrize("real", [np.float32, np.float64])
penalties = st.fixed_dictionaries(
    {
        "repetition_penalty": st.one_of(st.sampled_from(REPETITION_PENALTIES), st.floats(0.1, 10)),
        "frequency_penalty": st.one_of(st.sampled_from(ADDED_PENALTIES), st.floats(-2, 2)),
        "presence_penalty": st.one_of(st.sampled_from(ADDED_PENALTIES), st.floats(-2, 2)),
    }
)


@both
@real_or_double
@given(row=any_rows, given=penalties, rng=generators)
def test_penalties_are_those_of_other_systems(module, real, row, given, rng):
    row = np.where(row == -np.inf, -FLOAT32_MAX, row).astype(real)
    prompt, output = rng.integers(0, len(row), 5).tolist(), rng.integers(0, min(len(row), 6), 9).tolist()
    want = penalised(row, prompt, output, **given)
    result = everything(module, row, **given, prompt_ids=prompt, output_ids=output, top_k=len(row) // 2)
    as_if = everything(module, want, top_k=len(row) // 2)
    for got, expected in zip(result[:2] + result[3:], as_if[:2] + as_if[3:], strict=True):
        assert_same(got, expected)
    # mask_logits returns the original values and not the penalised ones.
    assert_same(result[2], np.where(as_if[2] == -np.inf, real(-np.inf), row))


@both
@pytest.mark.parametrize(
    ("name", "value", "output", "want"),
    [
        ("repetition_penalty", 2.0, [1], [2, 1, 0, 3]),  # 3 / 2 = 1.5
        ("repetition_penalty", 4.0, [1, 1, 1], [2, 0, 1, 3]),  # applied once, however often the token occurs
        ("repetition_penalty", 0.5, [0, 3], [1, 0, 2, 3]),  # below 1 it makes tokens more likely: 1 / 0.5 = 2, a tie
        ("repetition_penalty", 1e30, [0, 1, 2, 3], [1, 2, 0, 3]),
        ("frequency_penalty", 0.75, [1, 1], [2, 1, 0, 3]),  # 3 - 2 * 0.75 = 1.5
        ("frequency_penalty", 0.75, [1], [1, 2, 0, 3]),
        ("frequency_penalty", -3.0, [3, 3], [3, 1, 2, 0]),  # -1 + 6
        ("presence_penalty", 1.5, [1, 1, 1], [2, 1, 0, 3]),
        ("presence_penalty", None, [1], [1, 2, 0, 3]),
        ("frequency_penalty", None, [1], [1, 2, 0, 3]),
        ("repetition_penalty", None, [1], [1, 2, 0, 3]),
    ],
)
def test_penalties_by_hand(module, name, value, output, want):
    assert kept(module, ROW, **{name: value}, output_ids=output) == want
    assert module.sample(ROW, temperature=0, **{name: value}, output_ids=output) == want[0]


@both
def test_what_of_the_history_counts(module):
    def after(prompt, output, **parameters):
        return kept(module, ROW, prompt_ids=prompt, output_ids=output, **parameters)

    plain = [1, 2, 0, 3]
    assert after([1], [], repetition_penalty=2) == after([], [1], repetition_penalty=2) == [2, 1, 0, 3]
    for name in ("frequency_penalty", "presence_penalty"):
        assert after([1], None, **{name: 1.5}) == plain  # the prompt does not count
        assert after(None, [1], **{name: 1.5}) == [2, 1, 0, 3]
    # The window covers the last tokens of prompt and output together.
    for window, want in [(1, plain), (2, [2, 1, 0, 3]), (3, [2, 1, 0, 3]), (0, [2, 1, 0, 3]), (None, [2, 1, 0, 3])]:
        for name in ("repetition_penalty", "frequency_penalty", "presence_penalty"):
            assert after([3], [1, 3], **{name: 1.5 if name[0] != "r" else 2}, penalty_window=window) == want
    assert after([1], [3], repetition_penalty=2, penalty_window=1) == plain
    assert after([1], [3], repetition_penalty=2, penalty_window=2**64 - 1) == [2, 1, 0, 3]
    for nothing in (None, [], (), np.array([]), np.empty(0, np.int64)):
        assert after([3], nothing, repetition_penalty=2, presence_penalty=9) == plain
    # If the window reaches into the prompt, only the tokens of the output are counted.
    assert after([1, 1], [2], frequency_penalty=1.5, penalty_window=3) == [1, 0, 2, 3]


@both
@real_or_double
@pytest.mark.parametrize("sign", [1, -1])
def test_a_penalty_never_bans(module, real, sign):
    """A logit that overflows is clipped to the largest finite value, and a banned token stays banned."""
    row = np.array([1e38, -1e38, 0.0, -np.inf], real)
    given = {"frequency_penalty": sign * 1e30, "presence_penalty": sign * 1e30, "repetition_penalty": 1e30}
    ids = kept(module, row, **given, output_ids=[1] * 3 + [0] * 2 + [3, 2], prompt_ids=[1])
    assert sorted(ids) == [0, 1, 2]
    # -1e38 * 1e30 would be -inf in float32.
    assert_same(
        everything(module, row, **given, output_ids=[0, 1]), everything(reference, row, **given, output_ids=[0, 1])
    )


# ---- biases ----------------------------------------------------------------------------------------------------------


@both
@real_or_double
@given(row=any_rows, rng=generators)
def test_a_bias_is_added(module, real, row, rng):
    row = np.where(row == -np.inf, 0, row).astype(real)
    ids = rng.integers(0, len(row), 6)
    bias = {int(token): float(rng.choice([1.5, -2.0, -INF, 3.4e38, -3.4e38, 1e-45, rng.normal()])) for token in ids}
    want = row.copy()
    with np.errstate(all="ignore"):
        for token, value in bias.items():
            want[token] = -np.inf if value == -INF else clip(row[token] + real(value))
    if np.all(want == -np.inf):
        return
    result, as_if = everything(module, row, logit_bias=bias, top_p=0.9), everything(module, want, top_p=0.9)
    for got, expected in zip(result[:2] + result[3:], as_if[:2] + as_if[3:], strict=True):
        assert_same(got, expected)
    assert_same(result[2], np.where(as_if[2] == -np.inf, real(-np.inf), row))


@both
def test_biases_by_hand(module):
    assert kept(module, ROW, logit_bias={3: 2.5}) == [1, 2, 3, 0]
    assert kept(module, ROW, logit_bias={1: -INF, 0: -INF}) == [2, 3]
    assert kept(module, ROW, logit_bias={}) == kept(module, ROW, logit_bias=None) == [1, 2, 0, 3]
    assert kept(module, ROW, logit_bias={np.int32(3): np.float16(100)}) == [3, 1, 2, 0]
    assert module.sample(ROW, temperature=0, logit_bias={3: 100}) == 3
    assert kept(module, np.float32([-INF, 0.0]), logit_bias={0: 100.0}) == [1]  # a banned token stays banned
    assert kept(module, np.float32([-1e38, 0.0]), logit_bias={0: -3.4e38}) == [
        1,
        0,
    ]  # and no other token becomes banned
    batch = np.tile(ROW, (3, 1))
    assert module.sample(batch, temperature=0, logit_bias={3: 9}).tolist() == [3, 3, 3]
    assert module.sample(batch, temperature=0, logit_bias=[{3: 9}, None, {0: 3}]).tolist() == [3, 1, 0]
    assert module.sample(batch, temperature=0, logit_bias=({3: 9}, {}, None)).tolist() == [3, 1, 1]


# ---- bitmasks --------------------------------------------------------------------------------------------------------


def bitmask_of(allowed):
    """Return the words of a bitmask that allows these tokens."""
    bits = np.zeros(-(-len(allowed) // 32) * 32, bool)
    bits[: len(allowed)] = allowed
    return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)


@both
@dtypes
@given(row=any_rows, rng=generators)
def test_a_bitmask_bans(module, dtype, row, rng):
    words = rng.integers(-(2**31), 2**31, rng.integers(1, -(-len(row) // 32) + 1), dtype=np.int64).astype(np.int32)
    bits = np.unpackbits(words.astype("<i4").view(np.uint8), bitorder="little")[: len(row)].astype(bool)
    allowed = np.concatenate([bits, np.zeros(len(row) - len(bits), bool)])
    row = cast(row, dtype)
    banned = np.where(allowed, row, row.dtype.type(-np.inf))
    if np.all(banned == -np.inf):
        return
    want = everything(module, banned, top_p=0.9)
    wrong = row.copy()
    wrong[~allowed] = rng.choice([np.nan, np.inf, 3e4], np.count_nonzero(~allowed)).astype(row.dtype)
    for logits in (row, wrong):  # the logits of banned tokens do not matter
        assert_same(everything(module, logits, top_p=0.9, bitmask=words), want)
    assert_same(module.mask_logits(wrong, bitmask=words[None].view(np.uint32), top_p=0.9), want[2])


@both
def test_bitmasks_by_hand(module):
    row = np.arange(70, dtype=np.float32)
    assert kept(module, row, bitmask=bitmask_of(np.isin(np.arange(70), [0, 31, 32, 69]))) == [69, 32, 31, 0]
    assert kept(module, row, bitmask=np.int32([-1])) == list(range(31, -1, -1))
    assert kept(module, row, bitmask=np.int32([0, 1, -1])) == [*range(69, 63, -1), 32]
    # Bits beyond the last token are ignored.
    assert kept(module, row[:1], bitmask=np.int32([-1])) == [0]
    batch = np.tile(row, (3, 1))
    words = np.int32([[1, 0, 0], [-(2**31), 0, 0], [0, 2, 0]])
    assert module.sample(batch, bitmask=words).tolist() == [0, 31, 33]
    assert module.sample(batch, bitmask=words[:, :2]).tolist() == [0, 31, 33]
    assert module.sample(batch, temperature=0, bitmask=words[:, ::-1][:, 1:]).tolist() == [32, 63, 1]
    # A mask may be made for all texts, and one row of it passed to a draw.
    assert module.sample(row, bitmask=words[2:]) == module.sample(row, bitmask=words[2]) == 33


# ---- all of them -----------------------------------------------------------------------------------------------------


@dtypes
@given(rng=generators, data=st.data())
def test_ragged_histories_and_other_forms(dtype, rng, data):
    size, count = data.draw(st.integers(1, 200)), data.draw(st.integers(0, 5))
    batch = cast((rng.standard_normal((count, size)) * 3).astype(np.float32), dtype)
    ids = [rng.integers(0, size, rng.integers(0, 12)) for _ in range(count)]
    given = {
        "repetition_penalty": rng.uniform(0.5, 2, count),
        "frequency_penalty": 0.3,
        "presence_penalty": rng.uniform(-1, 1, count).tolist(),
        "penalty_window": data.draw(st.sampled_from([0, 1, 5, 100])),
        "logit_bias": [{0: float(b)} for b in range(count)],
        "prompt_ids": [None if rng.random() < 0.2 else one.tolist() for one in ids],
        "output_ids": [one[::-1] for one in ids],
    }
    want = everything(reference, batch, **given)
    assert_same(everything(toksample, batch, **given), want)
    alike = given | {
        "prompt_ids": tuple(given["prompt_ids"]),
        "output_ids": [one.astype(np.int16) for one in given["output_ids"]],
    }
    assert_same(everything(toksample, batch, **alike), want)
    for b in range(count):
        alone = {name: value[b] if isinstance(value, (list, np.ndarray)) else value for name, value in given.items()}
        assert_same(toksample.mask_logits(batch[b], **alone), want[0][b])
        assert toksample.sample(batch[b], **alone, seed=2, stream=b) == want[1][2, b]


@pytest.mark.parametrize("size", [4_096, 20_011])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("ban", ["bitmask", "logit_bias", "both"])
def test_a_ban_that_leaves_fewer_tokens_than_top_k(ban, dtype, size):
    row = np.random.default_rng(size).integers(-3, 3, size).astype(dtype)
    allowed = np.arange(size) % 3 == 0
    parameters = {}
    if ban != "logit_bias":
        parameters["bitmask"] = bitmask_of(allowed)
    if ban != "bitmask":
        parameters["logit_bias"] = dict.fromkeys(np.flatnonzero(~allowed).tolist(), -INF)
    left = np.count_nonzero(allowed)
    for k in (left - 1, left, left + 1, size // 2, size - 1, size):
        want = np.flatnonzero(allowed)[np.argsort(-row[allowed], kind="stable")[:k]].tolist()
        assert kept(toksample, row, top_k=k, **parameters) == want


@dtypes
@pytest.mark.parametrize("size", [4_095, 9_000, 20_011])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_edits_of_long_rows(kind, size, dtype):
    rng = np.random.default_rng(size)
    for filters in (
        {},
        {"top_k": size // 2},
        {"top_p": 0.95},
        {"temperature": 100.0, "typical_p": 0.6},
        {"min_p": 0.01},
        {"temperature": 3.0, "epsilon_cutoff": 1e-4},
        {"temperature": 100.0, "top_a": 0.9},
    ):
        row = make_rows(rng, kind, 1, size)
        edits = one_row(make_edits(rng, row), 0)
        (row,) = cast(row, dtype)
        masked = reference.mask_logits(row, **filters, **edits)
        assert_same(toksample.mask_logits(row, **filters, **edits), masked)
        assert_same(toksample.candidates(row, **filters, **edits), reference.candidates(row, **filters, **edits))
        for seed in range(2):
            want = reference.sample(row, **filters, **edits, seed=seed)
            assert toksample.sample(row, **filters, **edits, seed=seed) == want


@both
def test_the_order_of_the_edits(module):
    row = np.float32([4.0, -4.0, 1.0, 0.0, 9.0])
    given = {
        "bitmask": np.int32([0b01111]),
        "logit_bias": {0: 2.0, 1: 5.0, 4: 100.0},  # 6, 1, 1, 0
        "repetition_penalty": 2.0,  # 3, 0.5, 1, 0
        "frequency_penalty": 0.5,  # 2, 0, 1, 0
        "presence_penalty": 1.25,  # 0.75, -1.25, 1, 0
        "output_ids": [0, 0, 1],
    }
    assert kept(module, row, **given) == [2, 0, 3, 1]
    _, got = module.candidates(row, **given)
    _, want = module.candidates(np.float32([0.75, -1.25, 1, 0]))
    assert_same(got, want)


@both
def test_float64_is_edited_before_it_is_rounded(module):
    row = np.array([1e8, 1e8 + 1, 1e8 + 2])
    assert module.sample(row, temperature=0, logit_bias={0: 2.5}) == 0
    _, probs = module.candidates(row, logit_bias={0: 1.0}, presence_penalty=1.0, output_ids=[2])
    assert probs.tolist() == [1 / 3] * 3
    assert module.mask_logits(row, logit_bias={0: 2.5}, top_k=1).tolist() == [1e8, -INF, -INF]


def error_of(function, *args, **keywords):
    with pytest.raises((ValueError, TypeError)) as info:
        function(*args, **keywords)
    return f"{type(info.value).__name__}: {info.value}"


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_rows_that_the_edits_leave_without_an_answer(module, dtype):
    only = "logits must have a finite value, got only -inf"
    row = ROW.astype(dtype)
    banned = {"logit_bias": dict.fromkeys(range(4), -INF)}
    for edits in ({"bitmask": np.int32([0])}, banned, {"bitmask": np.int32([1]), "logit_bias": {0: -INF}}):
        assert (
            error_of(module.sample, row, **edits) == error_of(module.candidates, row, **edits) == f"ValueError: {only}"
        )
        assert error_of(module.mask_logits, row, temperature=0, **edits) == f"ValueError: {only}"
        assert module.sample(row, errors="mark", **edits) == -1
    batch = np.tile(row, (3, 1))
    masks = np.int32([[-1], [0], [-1]])
    assert error_of(module.sample, batch, bitmask=masks) == f"ValueError: {only} in row 1"
    assert module.sample(batch, bitmask=masks, temperature=0, errors="mark").tolist() == [1, -1, 1]
    row = row.copy()
    row[2] = np.nan
    for edits in ({"bitmask": np.int32([0b0110])}, {"logit_bias": {1: -INF}}, {"logit_bias": {2: 5.0}}):
        text = "ValueError: logits must be finite or -inf, got nan at id 2"
        assert error_of(module.sample, row, **edits) == text
        assert module.sample(row, errors="mark", **edits) == -1
    assert module.sample(row, temperature=0, bitmask=np.int32([0b1011])) == 1
    assert module.sample(row, temperature=0, logit_bias={1: 9.0, 2: -INF}) == 1
    row[2] = np.inf
    assert module.sample(row, temperature=0, logit_bias={1: 9.0, 2: -INF}) == 1
    edits = {"repetition_penalty": 2.0, "output_ids": [2], "presence_penalty": 1e30}
    for more in ({}, {"logit_bias": {1: -INF}}):
        text = "ValueError: logits must be finite or -inf, got inf at id 2"
        assert error_of(module.sample, row, **edits, **more) == text


# ---- errors ----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *[
            (name, value, f"in [0, 1], got {value}")
            for name in ("typical_p", "epsilon_cutoff", "top_a")
            for value in (-0.5, 1.5, math.nan, INF)
        ],
        *[
            ("repetition_penalty", value, f"in [1e-30, 1e30], got {value}")
            for value in (0.0, -1.0, 9e-31, 1.1e30, math.nan)
        ],
        *[
            (name, value, f"in [-1e30, 1e30], got {value}")
            for name in ("frequency_penalty", "presence_penalty")
            for value in (1.1e30, -1.1e30, math.nan, INF, -INF)
        ],
        *[("penalty_window", value, f"in [0, 2**64), got {value}") for value in (-1, 2**64)],
    ],
)
def test_numbers_out_of_range(module, name, value, text):
    for logits in (ROW, np.float64(ROW), np.tile(ROW, (2, 1))):
        for function in (module.sample, module.mask_logits):
            assert error_of(function, logits, **{name: value}) == f"ValueError: {name} must be {text}"
    got = error_of(module.sample, np.tile(ROW, (2, 1)), **{name: [DEFAULTS[name], value]})
    assert got == f"ValueError: {name} must be {text} (row 1)"
    assert error_of(SamplingParams, **{name: value}) == f"ValueError: {name} must be {text}"


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["prompt_ids", "output_ids"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([4], "ValueError: NAME must be in [0, 4), got 4"),
        ([0, -1], "ValueError: NAME must be in [0, 4), got -1"),
        (np.array([1, 70_000]), "ValueError: NAME must be in [0, 4), got 70000"),
        (np.array([2**64 - 1], np.uint64), f"ValueError: NAME must be in [0, 4), got {2**64 - 1}"),
        ([10**30], f"ValueError: NAME must be in [0, 4), got {10**30}"),
        ([1.0], "TypeError: NAME must be a sequence of token ids, got [1.0]"),
        (np.array([1.0]), "TypeError: NAME must be a sequence of token ids, got array([1.])"),
        (np.array([[1]]), "TypeError: NAME must be a sequence of token ids, got array([[1]])"),
        ([[1]], "TypeError: NAME must be a sequence of token ids, got [[1]]"),
        ("12", "TypeError: NAME must be a sequence of token ids, got '12'"),
        (b"12", "TypeError: NAME must be a sequence of token ids, got b'12'"),
        (1, "TypeError: NAME must be a sequence of token ids, got 1"),
        ({1}, "TypeError: NAME must be a sequence of token ids, got {1}"),
        ([None], "TypeError: NAME must be a sequence of token ids, got [None]"),
    ],
    ids=repr,
)
def test_wrong_token_ids(module, dtype, name, value, text):
    row = ROW.astype(dtype)
    for more in ({}, {"repetition_penalty": 2.0}, {"frequency_penalty": 0.5}):
        assert error_of(module.sample, row, **{name: value}, **more) == text.replace("NAME", name)


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[0], [1, 4], []], "ValueError: output_ids must be in [0, 4), got 4 (row 1)"),
        ([None, None, [-3]], "ValueError: output_ids must be in [0, 4), got -3 (row 2)"),
        (np.array([[0], [1], [9]]), "ValueError: output_ids must be in [0, 4), got 9 (row 2)"),
        ([[0], [1]], "ValueError: output_ids must have token ids for each of the 3 rows, got 2"),
        (np.zeros((4, 1), int), "ValueError: output_ids must have token ids for each of the 3 rows, got 4"),
        ([1, 2, 3], "TypeError: output_ids must be a sequence of token ids for each row, got [1, 2, 3]"),
        (
            np.array([1, 2, 3]),
            "TypeError: output_ids must be a sequence of token ids for each row, got array([1, 2, 3])",
        ),
        ([["1"]] * 3, "TypeError: output_ids must be a sequence of token ids for each row, got [['1'], ['1'], ['1']]"),
        (1, "TypeError: output_ids must be a list with the token ids of each row, got 1"),
        ("123", "TypeError: output_ids must be a list with the token ids of each row, got '123'"),
    ],
    ids=repr,
)
def test_wrong_token_ids_of_a_batch(module, dtype, value, text):
    batch = np.tile(ROW.astype(dtype), (3, 1))
    for more in ({}, {"presence_penalty": 2.0}):
        assert error_of(module.sample, batch, output_ids=value, **more) == text


MAPPING = "logit_bias must be a mapping from token ids to numbers"


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({4: 1.0}, "ValueError: logit_bias must have token ids in [0, 4), got 4"),
        ({-1: 1.0}, "ValueError: logit_bias must have token ids in [0, 4), got -1"),
        ({1: math.nan}, "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got nan for id 1"),
        ({1: INF}, "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got inf for id 1"),
        ({1: 3.41e38}, "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got 3.41e+38 for id 1"),
        ({1: -3.41e38}, "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got -3.41e+38 for id 1"),
        (
            {1: -(10**400)},
            "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got a negative integer of about 401 digits for id 1",
        ),
        ({1: "1"}, f"TypeError: {MAPPING}, got {{1: '1'}}"),
        ({1: None}, f"TypeError: {MAPPING}, got {{1: None}}"),
        ({"1": 1.0}, f"TypeError: {MAPPING}, got {{'1': 1.0}}"),
        ({1.0: 1.0}, f"TypeError: {MAPPING}, got {{1.0: 1.0}}"),
        ([(1, 1.0)], f"TypeError: {MAPPING}, got [(1, 1.0)]"),
        ([{1: 1.0}], f"TypeError: {MAPPING}, got [{{1: 1.0}}]"),
        (1.0, f"TypeError: {MAPPING}, got 1.0"),
    ],
    ids=repr,
)
def test_wrong_biases(module, dtype, value, text):
    assert error_of(module.sample, ROW.astype(dtype), logit_bias=value) == text
    if not text.endswith(("got 4", "got -1")):
        assert error_of(SamplingParams, logit_bias=value) == text


@both
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{1: 1.0}, {4: 1.0}], "ValueError: logit_bias must have token ids in [0, 4), got 4 (row 1)"),
        ([None, {1: INF}], "ValueError: logit_bias must be in [-3.4e38, 3.4e38] or -inf, got inf for id 1 (row 1)"),
        ([{}], "ValueError: logit_bias must have one mapping for each of the 2 rows, got 1"),
        ([1.0, 2.0], f"TypeError: {MAPPING}, or one for each row of a batch, got [1.0, 2.0]"),
        ("ab", f"TypeError: {MAPPING}, or one for each row of a batch, got 'ab'"),
    ],
    ids=repr,
)
def test_wrong_biases_of_a_batch(module, value, text):
    assert error_of(module.sample, np.tile(ROW, (2, 1)), logit_bias=value) == text


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64([1, 2]), "TypeError: RULE, got int64 of shape (2,)"),
        (np.float32([1]), "TypeError: RULE, got float32 of shape (1,)"),
        (np.array([True]), "TypeError: RULE, got bool of shape (1,)"),
        (np.int32([1, 2, 3]), "ValueError: RULE, got int32 of shape (3,)"),
        (np.int32([]), "ValueError: RULE, got int32 of shape (0,)"),
        (np.int32(1), "ValueError: RULE, got int32 of shape ()"),
        (np.zeros((2, 2), np.int32), "ValueError: RULE, got int32 of shape (2, 2)"),
        ([1, 2], "TypeError: RULE, got [1, 2]"),
        ("12", "TypeError: RULE, got '12'"),
        (5, "TypeError: RULE, got 5"),
    ],
    ids=repr,
)
def test_wrong_bitmasks(module, dtype, value, text):
    rule = "bitmask must be an int32 array of shape (n,) or (1, n), n in [1, 2]"
    row = np.arange(33, dtype=dtype)
    assert error_of(module.sample, row, bitmask=value) == text.replace("RULE", rule)


@both
def test_wrong_bitmasks_of_a_batch(module):
    batch = np.zeros((3, 33), np.float32)
    rule = "bitmask must be an int32 array of shape (3, n), n in [1, 2]"
    for shape in [(2,), (1, 2), (2, 2), (3, 3), (3, 0), (3, 1, 1)]:
        text = f"ValueError: {rule}, got int32 of shape {shape}"
        assert error_of(module.sample, batch, bitmask=np.zeros(shape, np.int32)) == text


@both
def test_nothing_that_is_given_changes(module):
    given = {
        "prompt_ids": np.array([1, 2]),
        "output_ids": np.array([3, 1, 1]),
        "bitmask": np.int32([7]),
        "logit_bias": {2: 1.0, 0: -INF},
    }
    before = {name: value.copy() for name, value in given.items()}
    row = ROW.copy()
    everything(module, row, **given, repetition_penalty=1.5, frequency_penalty=0.1, presence_penalty=0.2)
    assert_same(row, ROW)
    for name, value in given.items():
        if name == "logit_bias":
            assert list(value.items()) == list(before[name].items())
        else:
            assert_same(value, before[name])
