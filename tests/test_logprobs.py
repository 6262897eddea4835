"""Log-probabilities of draws: kernels and reference agree to the bit, and both agree with float64."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import (
    DTYPES,
    FIXTURES,
    KINDS,
    assert_same,
    cast,
    generators,
    make_edits,
    make_filters,
    make_order,
    make_params,
    make_rows,
    make_rules,
    make_words,
    one_row,
    ordered_params,
    pick,
    rows,
    with_order,
    words,
)
from scipy.special import log_softmax

import toksample
from toksample import reference
from toksample._orders import ORDERS
from toksample._parameters import LOGPROBS_MODES

dtypes = pytest.mark.parametrize("dtype", DTYPES)
modes = pytest.mark.parametrize("mode", LOGPROBS_MODES)
REAL = np.load(FIXTURES / "real_rows.npz")
LOGITS = np.float32([1.0, 3.0, 2.0, -1.0])


def fields(sampled):
    assert type(sampled) is toksample.Sampled
    return dataclasses.astuple(sampled)


def assert_equal(got, want):
    assert_same(fields(got), fields(want))


def make_wanted(rng, size, mode, shape=()):
    """Make the keywords that ask for log-probabilities."""
    wanted = {"logprobs": int(rng.choice([0, 1, 5, size, rng.integers(0, size + 1)])), "logprobs_mode": mode}
    wanted["logprobs"] = min(wanted["logprobs"], size)
    if rng.random() < 0.7:
        wanted["logprob_token_ids"] = rng.integers(0, size, (*shape, rng.integers(0, 5)))
    return wanted


# ---- kernel == reference -----------------------------------------------------------------------------------------------


@modes
@dtypes
@given(row=rows, params=ordered_params, rng=generators, word=words)
def test_a_row(dtype, mode, row, params, rng, word):
    params |= one_row(make_edits(rng, row[None]), 0)
    wanted = make_wanted(rng, len(row), mode)
    row = cast(row, dtype)
    got = toksample.sample(row, **params, **word, **wanted)
    assert_equal(got, reference.sample(row, **params, **word, **wanted))
    assert_same(got.tokens, toksample.sample(row, **params, **word))


@modes
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_batch(kind, mode):
    rng = np.random.default_rng(len(kind))
    for size in (1, 5, 64, 200, 1100):
        batch = make_rows(rng, kind, 6, size)
        params, word = make_params(rng, batch), make_words(rng, 6)
        batch = cast(batch, DTYPES[size % 4])
        wanted = make_wanted(rng, size, mode, (6,))
        got = toksample.sample(batch, **params, **word, **wanted)
        assert_equal(got, reference.sample(batch, **params, **word, **wanted))
        assert_equal(got, toksample.sample(batch, **params, **word, **wanted, num_threads=3))


@modes
def test_rules(mode):
    """A row may lose all tokens to bans, or have NaN at a banned one, which is an error only in the raw row."""
    rng = np.random.default_rng(7)
    for size in (3, 70, 300):
        for dtype in ("float32", "float64"):
            batch = cast(make_rows(rng, "normal", 40, size), dtype)
            batch[::7, size // 2] = np.nan
            params = make_rules(rng, len(batch), size) | {"suppress_tokens": [[size // 2]] * 40}
            word, wanted = make_words(rng, 40), make_wanted(rng, size, mode)
            got = toksample.sample(batch, **params, **word, **wanted, errors="mark")
            assert_equal(got, reference.sample(batch, **params, **word, **wanted, errors="mark"))
            assert (got.tokens[::7] == -1).all() == (not mode.startswith("processed") or (got.tokens == -1).all())


PARAMETER_SETS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.95},
    {"temperature": 100.0, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 20_000},
    {"temperature": 1.0, "typical_p": 0.2},
    {"temperature": 100.0, "typical_p": 0.5, "xtc_probability": 1.0, "xtc_threshold": 1e-5},
    {"temperature": 100.0, "xtc_probability": 1.0, "xtc_threshold": 1 / 40_000},
    {"temperature": 2.0, "top_k": 500, "xtc_probability": 1.0, "xtc_threshold": 0.01, "order": ORDERS["llama.cpp"]},
    {"temperature": 1.0, "smoothing_factor": 0.3, "smoothing_curve": 1.5, "min_p": 0.01},
    {"temperature": 1.0, "dynatemp_range": 0.5},
    {"temperature": 0.7, "logit_bias": {3: 2.0, 100: -np.inf}, "top_p": 0.9},
]


@modes
@pytest.mark.parametrize("params", PARAMETER_SETS, ids=str)
def test_long_rows(params, mode):
    rng = np.random.default_rng(3)
    real = REAL["full"][:2].astype(np.float32)
    for batch in (real, make_rows(rng, "normal", 2, 40_000), make_rows(rng, "few values", 2, 30_001)):
        size = batch.shape[1]
        for top in (0, 5, 3_000, size):
            wanted = {"logprobs": top, "logprobs_mode": mode, "logprob_token_ids": [0, 3, 100, size - 1]}
            got = toksample.sample(batch, **params, seed=4, **wanted)
            assert_equal(got, reference.sample(batch, **params, seed=4, **wanted))
            assert_same(got.tokens, toksample.sample(batch, **params, seed=4))


@given(rng=generators)
def test_a_row_of_a_batch_is_described_as_alone(rng):
    batch = make_rows(rng, "normal", 3, int(rng.integers(1, 200)))
    params, word = make_filters(rng, *batch.shape), make_words(rng, 3)
    params = with_order(params, make_order(rng))
    wanted = make_wanted(rng, batch.shape[1], rng.choice(LOGPROBS_MODES), (3,))
    got = toksample.sample(batch, **params, **word, **wanted)
    for b, row in enumerate(batch):
        own = wanted | {name: wanted[name][b] for name in ("logprob_token_ids",) if name in wanted}
        alone = toksample.sample(row, **one_row(params | word, b), **own)
        assert_same(np.array(alone.logprobs), np.array(got.logprobs[b]))
        assert (alone.tokens, alone.ranks) == (got.tokens[b], got.ranks[b])
        assert_same(alone.top_ids, got.top_ids[b])
        assert_same(alone.top_logprobs, got.top_logprobs[b])
        if "logprob_token_ids" in wanted:
            assert_same(alone.given_logprobs, got.given_logprobs[b])
    last = toksample.sample(batch[2:], **pick(params | word, [2]), logprobs=1)
    assert_same(last.tokens, got.tokens[2:])


# ---- the truth ---------------------------------------------------------------------------------------------------------


def truth(row, kept, temperature):
    """Return the log-probabilities of all tokens in float64, -inf for those that are not kept."""
    x = np.where(np.isin(np.arange(len(row)), kept), row.astype(np.float64), -np.inf)
    with np.errstate(invalid="ignore"):
        return log_softmax(x / temperature)


@pytest.mark.parametrize("kind", [kind for kind in sorted(KINDS) if kind not in ("huge", "denormal")])
def test_they_are_those_of_float64(kind):
    rng = np.random.default_rng(1)
    for size in (1, 7, 100, 5000):
        for row in make_rows(rng, kind, 5, size):
            params = {"temperature": float(rng.choice([0.3, 1.0, 4.0])), "top_k": int(rng.integers(0, 60)), "seed": 1}
            params |= {"top_p": 0.95, "typical_p": float(rng.choice([1.0, 0.1]))}
            given = rng.integers(0, size, 4)
            for mode, kept, temperature in (
                ("raw", np.flatnonzero(row > -np.inf), 1.0),
                ("processed", toksample.candidates(row, **params)[0], params["temperature"]),
            ):
                want = truth(row, kept, temperature)
                got = toksample.sample(
                    row, **params, logprobs=size, logprobs_mode=f"{mode}_logprobs", logprob_token_ids=given
                )
                assert abs(got.logprobs - want[got.tokens]) <= 1e-6
                np.testing.assert_allclose(got.given_logprobs, want[given], rtol=1e-14, atol=1e-6)
                np.testing.assert_allclose(
                    got.top_logprobs[: len(kept)], want[got.top_ids[: len(kept)]], rtol=1e-14, atol=1e-6
                )
                assert (got.top_logprobs[len(kept) :] == -np.inf).all()
                assert (got.top_ids[len(kept) :] == -1).all()
                assert sorted(got.top_ids[: len(kept)]) == sorted(kept)
                assert got.top_ids[got.ranks - 1] == got.tokens
                logits = toksample.sample(row, **params, logprobs=0, logprobs_mode=f"{mode}_logits")
                assert logits.logprobs == np.float64(row[got.tokens]) / temperature


def test_far_in_the_tail_and_near_0():
    row = np.float32([0, -20, -100, -1000, -3e38])
    got = toksample.sample(row, temperature=0, logprobs=5)
    np.testing.assert_allclose(got.top_logprobs, log_softmax(row.astype(np.float64)), rtol=1e-15, atol=1e-12)


def test_float64_is_as_precise_far_in_the_tail():
    """The kernels round float64 rows to float32, which alone would be off by 6e-8 of the distance from the maximum."""
    row = np.array([1e6 + 0.1, 1e6 - 30.7, 1e6 - 1000.3, -1e7 / 3, -1e300, -np.inf, 1e6])
    for logits in (row, np.stack([row, row - 7.7])):
        want = log_softmax(logits, axis=-1)
        got = toksample.sample(logits, seed=1, logprobs=7, logprob_token_ids=range(7))
        np.testing.assert_allclose(got.given_logprobs, want, rtol=1e-15, atol=1e-7)
        np.testing.assert_allclose(got.top_logprobs, -np.sort(-want, axis=-1), rtol=1e-15, atol=1e-7)
        each = [toksample.score(np.atleast_2d(logits)[-1], token).logprobs for token in range(7)]
        np.testing.assert_allclose(each, np.atleast_2d(want)[-1], rtol=1e-15, atol=1e-7)
    scores = toksample.score(np.stack([row] * 2), [2, 2], temperature=[0.0, 2.0])
    np.testing.assert_allclose(scores.logprobs, [-np.inf, log_softmax(row / 2)[2]], rtol=1e-15, atol=1e-7)


def test_a_token_that_is_kept_alone_is_certain():
    """Its mass may be 1 in the masses of the row, of which no precise logarithm could be taken."""
    row = np.float32([0, 0, -20, -20.5, -25, -26])
    order = ("temperature", "typical_p", "xtc", "top_k")
    for params in ({"temperature": 0}, {"top_k": 1}, {"top_k": 1, "typical_p": 1e-9, "order": order}):
        got = toksample.sample(row, **params, logprobs=2, logprobs_mode="processed_logprobs", seed=3)
        assert (got.logprobs, got.ranks) == (0.0, 1)
        assert_same(got.top_ids, np.array([got.tokens, -1]))


def test_raw_is_the_row_as_it_is_given():
    params = {"temperature": 0.3, "top_k": 1, "logit_bias": {1: -5.0}, "smoothing_factor": 0.1, "suppress_tokens": [2]}
    for logits in (LOGITS, LOGITS.astype(np.float64) + 1e6):
        got = toksample.sample(logits, **params, seed=1, logprobs=4)
        assert (got.tokens, got.ranks) == (0, 3)
        np.testing.assert_allclose(got.top_logprobs, log_softmax(np.sort(LOGITS.astype(float))[::-1]), atol=1e-6)
        got = toksample.sample(
            logits, **params, seed=1, logprobs=4, logprobs_mode="raw_logits", logprob_token_ids=[3, 3]
        )
        assert_same(got.top_logprobs, np.sort(logits.astype(np.float64))[::-1].copy())
        assert (got.logprobs, *got.given_logprobs) == (logits[0], logits[3], logits[3])


def test_processed_is_the_distribution_of_the_draw():
    params = {"temperature": 0.5, "logit_bias": {1: -1.5}, "suppress_tokens": [2]}
    got = toksample.sample(LOGITS, **params, seed=1, logprobs=4, logprobs_mode="processed_logits")
    assert_same(got.top_ids, np.array([1, 0, 3, -1]))
    assert_same(got.top_logprobs, np.array([3.0, 2.0, -2.0, -np.inf]))
    greedy = params | {"temperature": 0}
    got = toksample.sample(LOGITS, **greedy, logprobs=2, logprobs_mode="processed_logits", logprob_token_ids=[0, 1])
    assert (got.tokens, got.logprobs, *got.given_logprobs) == (1, 1.5, -np.inf, 1.5)


def test_shapes():
    one = toksample.sample(LOGITS, seed=1, logprobs=0)
    assert [type(one.tokens), type(one.logprobs), type(one.ranks)] == [int, float, int]
    assert (one.top_ids.shape, one.top_logprobs.shape, one.given_ids, one.given_logprobs) == ((0,), (0,), None, None)
    many = toksample.sample(np.stack([LOGITS] * 3), seed=1, logprob_token_ids=[2, 0])
    assert_same(many.given_ids, np.array([[2, 0]] * 3))
    assert (many.top_ids.shape, many.given_logprobs.shape, many.ranks.shape) == ((3, 0), (3, 2), (3,))
    none = toksample.sample(np.empty((0, 4), np.float32), logprobs=2, logprob_token_ids=[1])
    assert (none.top_ids.shape, none.given_logprobs.shape) == ((0, 2), (0, 1))
    assert toksample.sample(LOGITS, seed=1, logprobs=None) == one.tokens
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.tokens = 3


# ---- the sampler and the loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7, "top_p": 0.9},
        {"presence_penalty": 1.0, "top_k": 3},
        {"mirostat": 1, "mirostat_tau": 2.0},
        {"mirostat": 2, "mirostat_tau": 2.0},
        {"mirostat": 2, "xtc_probability": 1.0, "xtc_threshold": 1e-5, "order": ("temperature", "mirostat", "xtc")},
    ],
    ids=str,
)
@modes
def test_sampler(params, mode):
    """A sampler draws the same tokens and keeps the same state, and describes them as `sample` does."""
    rng = np.random.default_rng(5)
    plain, describing = (toksample.Sampler(**params, seed=6) for _ in range(2))
    for _ in range(20):
        row = make_rows(rng, "normal", 1, 3000)[0]
        known = {"position": plain.position, "output_ids": plain.output_ids, "mirostat_mu": plain.mirostat_mu}
        token, drawn = plain(row), describing(row, logprobs=3, logprobs_mode=mode, logprob_token_ids=[5])
        want = {"logprobs": 3, "logprobs_mode": mode, "logprob_token_ids": [5]}
        assert drawn.tokens == token
        assert_equal(drawn, reference.sample(row, **params, seed=6, **known, **want))
        assert describing.position == plain.position
        assert describing.mirostat_mu == plain.mirostat_mu
    if plain.output_ids is not None:
        assert_same(describing.output_ids, plain.output_ids)


def test_a_call_that_fails_gives_its_position_back():
    sampler = toksample.Sampler(seed=1)
    with pytest.raises(ValueError, match="logprobs"):
        sampler(LOGITS, logprobs=5)
    assert sampler.position == 0


def test_mirostat_knows_the_mass_without_the_tokens_that_xtc_drops():
    """The surprise is that among the tokens that are left, also where XTC comes last and leaves too many for a list."""
    row = make_rows(np.random.default_rng(2), "normal", 1, 60_000)[0]
    params = {"temperature": 100.0, "mirostat": 2, "xtc_probability": 1.0, "xtc_threshold": 1e-9}
    params |= {"order": ("temperature", "mirostat", "xtc"), "mirostat_tau": 8.0}
    sampler = toksample.Sampler(**params, seed=3)
    ids, probs = toksample.candidates(row, **params, seed=3, mirostat_mu=16.0)
    token = sampler(row)
    surprise = -np.log2(probs[np.flatnonzero(ids == token)[0]])
    assert sampler.mirostat_mu == pytest.approx(16.0 - 0.1 * (surprise - 8.0), abs=1e-6)


def test_generate():
    def model(ids):
        return np.eye(8, dtype=np.float32)[(ids[-1] + 1) % 8] * 2

    plain = list(toksample.generate(model, [2], seed=4, max_new_tokens=9))
    drawn = list(toksample.generate(model, [2], seed=4, max_new_tokens=9, logprobs=2, logprobs_mode="raw_logits"))
    assert [one.tokens for one in drawn] == plain
    assert {one.logprobs for one in drawn} == {0.0, 2.0}
    sampler = toksample.Sampler(seed=4)
    assert [one.tokens for one in toksample.generate(model, [2], sampler, max_new_tokens=9, logprobs=0)] == plain
    until = list(toksample.generate(model, [2], seed=4, max_new_tokens=9, logprobs=0, stop_token_ids=[plain[3]]))
    assert [one.tokens for one in until] == plain[: plain.index(plain[3])]
    with pytest.raises(TypeError, match="must return an object with a token id as tokens, got 3"):
        next(toksample.generate(model, [2], lambda row, logprobs, logprobs_mode: 3, logprobs=1))


# ---- errors ------------------------------------------------------------------------------------------------------------

ERRORS = [
    ({"logprobs": -1}, ValueError, "logprobs must be >= 0, got -1"),
    ({"logprobs": 5}, ValueError, r"logprobs must be in \[0, 4\], got 5"),
    ({"logprobs": 10**30}, ValueError, r"logprobs must be in \[0, 4\], got 1000"),
    ({"logprobs": 1.0}, TypeError, "logprobs must be an integer, got 1.0"),
    ({"logprobs": 1, "logprobs_mode": "raw"}, ValueError, "logprobs_mode must be one of 'raw_logprobs', .*, got 'raw'"),
    ({"logprobs": 1, "logprobs_mode": None}, ValueError, "logprobs_mode must be one of .*, got None"),
    ({"logprob_token_ids": [4]}, ValueError, r"logprob_token_ids must be in \[0, 4\), got 4"),
    ({"logprob_token_ids": [-1]}, ValueError, r"logprob_token_ids must be in \[0, 4\), got -1"),
    ({"logprob_token_ids": 3}, TypeError, "logprob_token_ids must be a sequence of token ids, got 3"),
    ({"logprob_token_ids": [1.5]}, TypeError, r"logprob_token_ids must be a sequence of token ids, got \[1.5\]"),
    ({"logprobs": 1, "out": np.zeros((), np.int64)}, TypeError, "out and logprobs must not both be given"),
    ({"logprobs": 1, "tempreture": 1}, TypeError, "tempreture"),
]


@pytest.mark.parametrize(("keywords", "kind", "message"), ERRORS, ids=lambda value: str(value)[:60])
def test_errors(keywords, kind, message):
    with pytest.raises(kind, match=message):
        toksample.sample(LOGITS, **keywords)
    if "out" not in keywords:
        with pytest.raises(kind, match=message):
            reference.sample(LOGITS, **keywords)


@pytest.mark.parametrize("module", [toksample, reference])
def test_errors_of_a_batch(module):
    batch = np.stack([LOGITS] * 3)
    with pytest.raises(ValueError, match=r"logprob_token_ids must have as many ids in each row, got \[1, 2, 0\]"):
        module.sample(batch, logprob_token_ids=[[1], [2, 3], []])
    with pytest.raises(ValueError, match="logprob_token_ids must have token ids for each of the 3 rows, got 2"):
        module.sample(batch, logprob_token_ids=[[1], [2]])
    batch[1, 2] = np.nan
    with pytest.raises(ValueError, match="logits must be finite or -inf, got nan at row 1, id 2"):
        module.sample(batch, logprobs=1, suppress_tokens=[[2]] * 3)
    marked = module.sample(batch, logprobs=1, logprob_token_ids=[0], errors="mark", seed=1)
    assert (marked.tokens[1], marked.logprobs[1], marked.ranks[1], marked.top_ids[1, 0]) == (-1, -np.inf, 0, -1)
    assert (marked.top_logprobs[1, 0], marked.given_logprobs[1, 0]) == (-np.inf, -np.inf)


@given(st.integers(0, 2**32 - 1))
def test_the_modes_differ_in_nothing_but_what_they_say(seed):
    rng = np.random.default_rng(seed)
    row = make_rows(rng, "normal", 1, 50)[0]
    each = [
        toksample.sample(row, seed=seed, temperature=0.9, logprobs=50, logprobs_mode=mode) for mode in LOGPROBS_MODES
    ]
    assert len({one.tokens for one in each}) == len({one.ranks for one in each}) == 1
    for one in each:
        assert_same(one.top_ids, each[0].top_ids)
