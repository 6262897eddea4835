"""Scores: kernels and reference agree to the bit, and both agree with float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from rows import DTYPES, FIXTURES, KINDS, TEMPERATURES, assert_same, batches, cast, generators, make_rows
from scipy.special import log_softmax

import toksample
from toksample import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES)
LOGITS = np.float32([[1.0, 3.0, 2.0, -np.inf], [0.0, 0.0, -1.0, 0.0]])


def assert_equal(got, want):
    assert type(got) is type(want) is toksample.Scores
    assert_same((got.logprobs, got.ranks), (want.logprobs, want.ranks))


@dtypes
@given(batch=batches, rng=generators)
def test_kernels_return_what_the_reference_returns(dtype, batch, rng):
    ids = np.where(rng.random(len(batch)) < 0.3, batch.argmax(axis=1), rng.integers(0, batch.shape[1], len(batch)))
    temperature = rng.choice(TEMPERATURES, len(batch))
    batch = cast(batch, dtype)
    got = toksample.score(batch, ids, temperature=temperature)
    assert_equal(got, reference.score(batch, ids, temperature=temperature))
    assert_equal(got, toksample.score(batch, ids.tolist(), temperature=temperature, num_threads=3))
    assert_equal(toksample.score(batch[0], ids[0]), reference.score(batch[0], int(ids[0])))


@pytest.mark.parametrize("kind", [kind for kind in sorted(KINDS) if kind not in ("huge", "denormal")])
def test_they_are_those_of_float64(kind):
    rng = np.random.default_rng(4)
    for size in (1, 65, 3000):
        batch = make_rows(rng, kind, 9, size)
        ids = rng.integers(0, size, 9)
        scores = toksample.score(batch, ids)
        with np.errstate(invalid="ignore"):
            want = log_softmax(batch.astype(np.float64), axis=1)[np.arange(9), ids]
        np.testing.assert_allclose(scores.logprobs, want, rtol=1e-14, atol=1e-6)
        own = batch[np.arange(9), ids][:, None]
        before = (batch > own) | ((batch == own) & (np.arange(size) < ids[:, None]))
        assert_same(scores.ranks, 1 + before.sum(axis=1))
        assert_same(scores.is_argmax, batch.argmax(axis=1) == ids)


def test_real_rows():
    rows = np.load(FIXTURES / "real_rows.npz")["full"].astype(np.float32)
    ids = np.random.default_rng(0).integers(0, rows.shape[1], len(rows))
    scores = toksample.score(rows, ids)
    assert_equal(scores, reference.score(rows, ids))
    want = log_softmax(rows.astype(np.float64), axis=1)[np.arange(len(rows)), ids]
    np.testing.assert_allclose(scores.logprobs, want, rtol=0, atol=1e-6)
    assert scores.perplexity == pytest.approx(np.exp(-want.mean()), rel=1e-6)


def test_a_row():
    score = toksample.score(LOGITS[0], 1)
    assert [type(score.logprobs), type(score.ranks), score.is_argmax] == [float, int, True]
    assert score.perplexity == math.exp(-score.logprobs)
    banned = toksample.score(LOGITS[0], 3)
    assert (banned.logprobs, banned.ranks, banned.perplexity) == (-math.inf, 4, math.inf)


def test_no_tokens():
    scores = toksample.score(LOGITS[:0], [])
    assert (scores.logprobs.shape, scores.is_argmax.shape) == ((0,), (0,))
    assert math.isnan(scores.perplexity)
    assert_equal(scores, reference.score(LOGITS[:0], []))


def test_at_temperature_0_the_argmax_is_certain():
    scores = toksample.score(LOGITS, [1, 1], temperature=0)
    assert_same(scores.logprobs, np.array([0.0, -np.inf]))
    assert_same(scores.ranks, np.array([1, 2]))


@pytest.mark.parametrize("module", [toksample, reference])
@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        ([1, 4], ValueError, r"ids must be in \[0, 4\), got 4"),
        ([1, -1], ValueError, r"ids must be in \[0, 4\), got -1"),
        ([1], ValueError, "ids must have one token id for each of the 2 rows, got 1"),
        (1, TypeError, "ids must be a sequence of token ids, got 1"),
        ([1.0, 2.0], TypeError, r"ids must be a sequence of token ids, got \[1.0, 2.0\]"),
        (np.zeros((2, 1), np.int64), TypeError, "ids must be a sequence of token ids"),
        (None, ValueError, "ids must have one token id for each of the 2 rows, got 0"),
    ],
    ids=str,
)
def test_errors(module, ids, kind, message):
    with pytest.raises(kind, match=message):
        module.score(LOGITS, ids)


@pytest.mark.parametrize("module", [toksample, reference])
def test_other_errors(module):
    with pytest.raises(TypeError, match="ids must be one token id where logits are one row, got"):
        module.score(LOGITS[0], [1])
    with pytest.raises(ValueError, match="temperature must be 0 or in"):
        module.score(LOGITS, [1, 2], temperature=-1)
    with pytest.raises(ValueError, match="logits must be finite or -inf, got nan at row 1, id 2"):
        module.score(np.where(np.arange(8).reshape(2, 4) == 6, np.float32(np.nan), LOGITS), [1, 2])
