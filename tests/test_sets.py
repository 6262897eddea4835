"""Kept sets of batches, and the log-probabilities of tokens under them at new logits."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from rows import DTYPES, assert_same, batches, cast, generators, make_params, make_rows, make_words, one_row
from test_errors import both, error_of

import toksample
from toksample import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES)


# ---- kept sets ---------------------------------------------------------------------------------------------------------


@dtypes
@given(batch=batches, rng=generators, num_threads=st.sampled_from([None, 1, 2, 7]))
def test_kept_sets_are_those_of_the_reference(dtype, batch, rng, num_threads):
    params = make_params(rng, batch) | make_words(rng, len(batch))
    batch = cast(batch, dtype)
    kept = toksample.candidates(batch, **params, num_threads=num_threads)
    assert type(kept) is toksample.KeptSets
    assert_same(kept, reference.candidates(batch, **params))


@both
@given(batch=batches, rng=generators)
def test_a_kept_set_is_that_of_the_row_alone(module, batch, rng):
    params = make_params(rng, batch) | make_words(rng, len(batch))
    kept = module.candidates(batch, **params)
    assert len(kept.offsets) == len(batch) + 1
    assert (kept.offsets[0], kept.offsets[-1]) == (0, len(kept.ids))
    for b, row in enumerate(batch):
        place = slice(*kept.offsets[b : b + 2])
        assert_same((kept.ids[place], kept.probs[place]), module.candidates(row, **one_row(params, b)))
        masses = kept.masses[place]
        assert_same(kept.probs[place], masses / float(sum(masses.tolist())))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_kept_sets_of_real_rows(real_batch, num_threads):
    batch = np.tile(real_batch, (3, 1))
    for params in ({"temperature": 0.7, "top_k": 50, "top_p": 0.9}, {"temperature": 1.5, "top_p": 0.9999}, {}):
        kept = toksample.candidates(batch, **params, num_threads=num_threads)
        for b in range(len(batch)):
            ids, masses = reference.survivors(batch[b], reference.Filters(**{"temperature": 1.0, **params}))
            place = slice(*kept.offsets[b : b + 2])
            assert_same((kept.ids[place], kept.masses[place]), (ids, masses))


@both
def test_kept_sets_are_a_sparse_matrix(module):
    logits = np.float32([[0, 2, 1, -1], [3, -np.inf, 0, 0], [1, 1, 1, 1]])
    kept = module.candidates(logits, top_p=0.7)
    assert kept.ids.tolist() == [1, 2, 0, 0, 1, 2]
    assert kept.offsets.tolist() == [0, 2, 3, 6]
    assert kept.masses[[0, 2, 3, 4, 5]].tolist() == [2**41] * 5
    assert kept.masses[1] == pytest.approx(2**41 / math.e, rel=1e-6)
    matrix = scipy.sparse.csr_array((kept.probs, kept.ids, kept.offsets), shape=logits.shape)
    want = np.zeros((3, 4))
    want[0, [1, 2]] = scipy.special.softmax([2, 1])
    want[1, 0] = 1
    want[2, :3] = 1 / 3
    np.testing.assert_allclose(matrix.toarray(), want, atol=1e-6)


@both
def test_kept_sets_of_no_rows(module):
    kept = module.candidates(np.zeros((0, 5), np.float16))
    assert kept.offsets.tolist() == [0]
    parts = (kept.ids, kept.masses, kept.probs)
    assert [(part.dtype, part.shape) for part in parts] == [(np.int64, (0,)), (np.uint64, (0,)), (np.float64, (0,))]
    assert module.replay(np.zeros((0, 5), np.float16), kept.ids, kept.offsets, []).shape == (0,)


@both
def test_errors_of_kept_sets_name_the_rows(module):
    batch = np.zeros((3, 4), np.float32)
    batch[1, 2] = np.nan
    assert error_of(module.candidates, batch) == "ValueError: logits must be finite or -inf, got nan at row 1, id 2"
    text = "ValueError: temperature must have one value for each of the 3 rows, got 2"
    assert error_of(module.candidates, batch, temperature=[1.0, 2.0]) == text


# ---- replay ------------------------------------------------------------------------------------------------------------


def make_sets(rng, shape):
    """Make a set of distinct ids for each row, in no order, and a token of each row that is mostly in it."""
    sets = [rng.permutation(shape[1])[: rng.integers(1, shape[1] + 1)] for _ in range(shape[0])]
    tokens = [rng.choice(one) if rng.random() < 0.8 else rng.integers(shape[1]) for one in sets]
    return np.concatenate(sets), np.cumsum([0, *map(len, sets)]), np.array(tokens)


@dtypes
@given(batch=batches, rng=generators, num_threads=st.sampled_from([None, 1, 2, 7]))
def test_replay_is_that_of_the_reference(dtype, batch, rng, num_threads):
    sets, params = make_sets(rng, batch.shape), make_params(rng, batch)
    batch[np.arange(len(batch)), sets[0][sets[1][:-1]]] = 1.0  # a set of banned tokens alone has no answer
    batch = cast(batch, dtype)
    got = toksample.replay(batch, *sets, temperature=params["temperature"], num_threads=num_threads)
    assert_same(got, reference.replay(batch, *sets, temperature=params["temperature"]))


@both
@dtypes
def test_replay_is_the_softmax_of_the_kept_tokens(module, dtype):
    """The probabilities are within 1e-6 of those in float64, also far in the tail. No other logit is read."""
    rng = np.random.default_rng(3)
    for kind in ("normal", "few values", "peaked", "neighbours", "rounded to float16"):
        batch = cast(make_rows(rng, kind, 40, 500), dtype)
        ids, offsets, tokens = make_sets(rng, batch.shape)
        unread = np.full_like(batch, np.nan)
        for b in range(len(batch)):
            place = ids[offsets[b] : offsets[b + 1]]
            unread[b, place] = batch[b, place]
        for temperature in (0.3, 1.0, 4.0):
            got = module.replay(unread, ids, offsets, tokens, temperature=temperature)
            for b in range(len(batch)):
                place = ids[offsets[b] : offsets[b + 1]]
                want = scipy.special.log_softmax(batch[b, place].astype(np.float64) / temperature)
                if tokens[b] in place:
                    (want,) = want[place == tokens[b]]
                    assert got[b] == pytest.approx(want, rel=1e-6, abs=1e-6)
                else:
                    assert got[b] == -np.inf


def test_replay_at_the_same_logits_is_the_probability_of_the_draw(real_batch):
    params = {"temperature": 0.8, "top_k": 50, "top_p": 0.9}
    kept = toksample.candidates(real_batch, **params)
    for place in (kept.offsets[:-1], kept.offsets[1:] - 1):  # the first and the last token of each row
        logprobs = toksample.replay(real_batch, kept.ids, kept.offsets, kept.ids[place], temperature=0.8)
        np.testing.assert_allclose(logprobs, np.log(kept.probs[place]), rtol=1e-6, atol=1e-6)


@both
def test_replay_at_temperature_0(module):
    logits = np.float32([[0, 5, 5, 9], [1, 1, 1, 1]])
    sets = [2, 1, 0, 3, 2], [0, 3, 5]
    assert module.replay(logits, *sets, [1, 2], temperature=0).tolist() == [0.0, 0.0]
    assert module.replay(logits, *sets, [2, 3], temperature=0).tolist() == [-np.inf, -np.inf]
    assert module.replay(logits, *sets, [1, 3], temperature=[0.0, 1.0]).tolist() == [0.0, pytest.approx(math.log(0.5))]


@both
def test_a_kept_token_that_is_banned_now(module):
    logits = np.float32([[0, -np.inf, 0, 9]])
    assert module.replay(logits, [0, 1, 2], [0, 3], [1]).tolist() == [-np.inf]
    assert module.replay(logits, [0, 1, 2], [0, 3], [2]).tolist() == [pytest.approx(math.log(0.5))]
    assert module.replay(logits, [0, 1, 2], [0, 3], [3]).tolist() == [-np.inf]


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64, ">i8"])
def test_types_of_the_ids(dtype):
    logits = np.float32([[0, 1, 2], [3, 4, 5]])
    want = reference.replay(logits, [0, 1, 2], [0, 2, 3], [1, 2])
    sets = (np.array(one, dtype) for one in ([0, 1, 2], [0, 2, 3], [1, 2]))
    assert_same(toksample.replay(logits, *sets), want)
    assert_same(toksample.replay(logits, np.array([0, 9, 1, 9, 2, 9])[::2], (0, 2, 3), [1, np.int8(2)]), want)


RIGHT = {"ids": [0, 1, 2, 3], "offsets": [0, 2, 3, 4], "tokens": [0, 2, 3]}
WRONG_SETS = [
    ({"ids": [0, 1, 2, 4]}, "ValueError: ids must be in [0, 4), got 4 at index 3"),
    ({"ids": [0, -1, 2, 3]}, "ValueError: ids must be in [0, 4), got -1 at index 1"),
    ({"ids": [1, 1, 2, 3]}, "ValueError: ids must name each token of a row once, got 1 twice in row 0"),
    ({"ids": [0, 1, 2]}, "ValueError: offsets must end with 3, the number of ids, got 4"),
    ({"ids": np.uint64([0, 1, 2, 2**63])}, f"ValueError: ids must be below 2**63, got {2**63}"),
    (
        {"ids": [0, 1, 2, 2**70]},
        f"TypeError: ids must be an array of integers of one dimension, got [0, 1, 2, {2**70}]",
    ),
    (
        {"ids": [[0, 1], [2, 3]]},
        "TypeError: ids must be an array of integers of one dimension, got [[0, 1], [2, 3]]",
    ),
    (
        {"ids": [0.0, 1, 2, 3]},
        "TypeError: ids must be an array of integers of one dimension, got [0.0, 1, 2, 3]",
    ),
    ({"offsets": None}, "TypeError: offsets must be an array of integers of one dimension, got None"),
    ({"offsets": [0, 2, 4]}, "ValueError: offsets must be of shape (4,), got shape (3,)"),
    ({"offsets": [1, 2, 3, 4]}, "ValueError: offsets must begin with 0, got 1"),
    ({"offsets": [0, 2, 2, 4]}, "ValueError: offsets must increase, as no set is empty, got 2 and 2 in row 1"),
    ({"offsets": [0, 3, 2, 4]}, "ValueError: offsets must increase, as no set is empty, got 3 and 2 in row 1"),
    ({"offsets": [0, 2, 3, 5]}, "ValueError: offsets must end with 4, the number of ids, got 5"),
    ({"tokens": [0, 2]}, "ValueError: tokens must be of shape (3,), got shape (2,)"),
    ({"tokens": [0, 2, 4]}, "ValueError: tokens must be in [0, 4), got 4 at index 2"),
    ({"tokens": "abc"}, "TypeError: tokens must be an array of integers of one dimension, got 'abc'"),
    (
        {"tokens": [True, False, True]},
        "TypeError: tokens must be an array of integers of one dimension, got [True, False, True]",
    ),
    ({"temperature": -1.0}, "ValueError: temperature must be 0 or in [1e-30, 1e30], got -1.0"),
    ({"temperature": [1.0]}, "ValueError: temperature must have one value for each of the 3 rows, got 1"),
    ({"logits": np.zeros(4)}, "ValueError: logits must be of shape (B, V), got shape (4,)"),
    ({"logits": np.zeros((2, 4))}, "ValueError: offsets must be of shape (3,), got shape (4,)"),
]


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("wrong", "text"), WRONG_SETS, ids=repr)
def test_errors_of_replay(module, dtype, wrong, text):
    arguments = {"logits": np.zeros((3, 4)), **RIGHT, **wrong}
    arguments["logits"] = arguments["logits"].astype(dtype)
    assert error_of(module.replay, **arguments) == text


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_errors_of_kept_logits_name_the_id(module, dtype):
    logits = np.zeros((3, 4), dtype)
    logits[0, 2] = np.nan  # which is not in the set
    assert module.replay(logits, **RIGHT)[1:].tolist() == [0, 0]
    logits[0, :2] = np.inf
    logits[2, 3] = np.nan
    text = "ValueError: logits must be finite or -inf, got inf at row 0, id 0; nan at row 2, id 3"
    assert error_of(module.replay, logits, [1, 0, 2, 3], RIGHT["offsets"], RIGHT["tokens"]) == text
    logits[:] = 0
    logits[1, 2] = -np.inf
    text = "ValueError: logits must have a finite value, got only -inf in row 1"
    assert error_of(module.replay, logits, **RIGHT) == text
