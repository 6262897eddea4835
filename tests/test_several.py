"""Several draws from one row, with and without replacement."""

import itertools
import math
import pickle
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from rows import DTYPES, KINDS, assert_same, batches, cast, generators, make_params, make_rows, make_words, one_row
from test_errors import both, error_of

import toksample
from toksample import reference

replacements = pytest.mark.parametrize("replacement", [True, False])
ROW = np.float32([0.0, 0.5, -0.5, 1.0, 0.2])


# ---- kernel == reference -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(batch=batches, rng=generators, n=st.integers(1, 40), replacement=st.booleans())
def test_draws_are_those_of_the_reference(dtype, batch, rng, n, replacement):
    params = make_params(rng, batch) | make_words(rng, len(batch))
    batch = cast(batch, dtype)
    got = toksample.sample(batch, **params, n=n, replacement=replacement)
    assert_same(got, reference.sample(batch, **params, n=n, replacement=replacement))
    assert_same(toksample.sample(batch, **params, n=n, replacement=replacement, num_threads=3), got)
    row, params = batch[-1], one_row(params, -1)
    assert_same(toksample.sample(row, **params, n=n, replacement=replacement), got[-1])


# Filters that keep the whole row, a list, a long prefix, and a long prefix without its first tokens.
LONG_SETS = [
    {},
    {"top_k": 3},
    {"top_k": 10_000},
    {"top_k": 15_000, "top_p": 0.9},
    {"top_p": 0.9},
    {"min_p": 1e-3},
    {"typical_p": 0.9},
    {"xtc_probability": 1.0, "xtc_threshold": 1e-4},
    {"xtc_probability": 1.0, "xtc_threshold": 5e-5, "top_p": 0.9},
]


@pytest.mark.parametrize("temperature", [0.3, 2.0, 1e4])
@pytest.mark.parametrize("kind", [*KINDS, "nearly flat"])
def test_draws_from_what_is_too_much_for_a_list(kind, temperature):
    size = 20_011
    rng = np.random.default_rng(size)
    row = (0.01 * rng.random(size)).astype(np.float32) if kind == "nearly flat" else make_rows(rng, kind, 1, size)[0]
    words = [reference.draw_word(5, stream, 7) for stream in range(60)]
    for params in LONG_SETS:
        kept = reference.survivors(row, reference.Filters(temperature=temperature, **params))
        for replacement in (True, False):
            got = toksample.sample(
                row, temperature=temperature, **params, seed=5, position=7, n=60, replacement=replacement
            )
            assert_same(got, reference.draw_several(*kept, words, replacement))


def test_draws_from_real_rows(real_row):
    for params in ({"temperature": 0.7}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 100.0}):
        kept = reference.survivors(real_row, reference.Filters(**params))
        words = [reference.draw_word(1, stream, 0) for stream in range(20)]
        for replacement in (True, False):
            got = toksample.sample(real_row, **params, seed=1, n=20, replacement=replacement)
            assert_same(got, reference.draw_several(*kept, words, replacement))


# ---- streams -----------------------------------------------------------------------------------------------------------


@both
@given(batch=batches, rng=generators, n=st.integers(1, 20))
def test_each_draw_is_that_of_its_stream(module, batch, rng, n):
    params = make_params(rng, batch) | make_words(rng, len(batch)) | {"xtc_probability": 0.0}
    tokens = module.sample(batch, **params, n=n)
    for j in range(n):
        streams = params["stream"] + np.uint64(j)  # which wraps around
        assert_same(tokens[:, j], module.sample(batch, **(params | {"stream": streams})))
    del params["stream"]
    tokens = module.sample(batch, **params, n=n)
    streams = np.arange(len(batch) * n).reshape(-1, n)
    for j in range(n):
        assert_same(tokens[:, j], module.sample(batch, **params, stream=streams[:, j]))


@both
def test_streams_wrap_around(module):
    tokens = module.sample(ROW, seed=1, stream=2**64 - 2, n=4)
    assert tokens.tolist() == [module.sample(ROW, seed=1, stream=s) for s in (2**64 - 2, 2**64 - 1, 0, 1)]


@both
@replacements
def test_the_first_draw_decides_for_a_random_filter(module, replacement):
    """All draws of a row are from the same tokens, also where XTC acts at random."""
    row = np.float32([2, 2, -9, -9, -9])
    kept = []
    for seed in range(40):
        params = {"xtc_probability": 0.5, "xtc_threshold": 0.1, "seed": seed}
        ids, _ = module.candidates(row, **params)
        tokens = module.sample(row, **params, n=30, replacement=replacement)
        assert tokens[0] == module.sample(row, **params)
        assert set(tokens.tolist()) - {-1} <= set(ids.tolist())
        kept.append(len(ids))
    assert set(kept) == {4, 5}


@both
def test_without_a_seed_draws_differ(module):
    row = np.zeros(1000, np.float32)
    assert len({tuple(module.sample(row, n=4).tolist()) for _ in range(5)}) == 5


# ---- the sequential distribution ---------------------------------------------------------------------------------------


def sequential(masses, n):
    """Yield every sequence of n draws without replacement, and its probability as a fraction."""
    for places in itertools.permutations(range(len(masses)), n):
        probability, left = Fraction(1), sum(masses)
        for place in places:
            probability *= Fraction(masses[place], left)
            left -= masses[place]
        yield places, probability


@pytest.mark.parametrize("masses", [(1, 2, 3), (3, 1), (2, 2, 1), (4, 1, 1), (1, 0, 2)])
def test_every_sequence_of_words_of_a_grid(masses):
    """The words of a grid are equally likely, and hit every target equally often: the frequencies are the probabilities."""
    lefts = {sum(some) for r in range(len(masses) + 1) for some in itertools.combinations(masses, r)} - {0}
    grid = math.lcm(*lefts)
    words = [-(-(i << 64) // grid) for i in range(grid)]
    n = min(sum(mass > 0 for mass in masses), 2)
    ids, weights = np.arange(len(masses)), np.array(masses, np.uint64)
    seen = Counter(
        tuple(reference.draw_several(ids, weights, sequence, False).tolist())
        for sequence in itertools.product(words, repeat=n)
    )
    want = {places: probability for places, probability in sequential(masses, n) if probability}
    assert {places: Fraction(count, grid**n) for places, count in seen.items()} == want


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sequences_have_the_sequential_distribution(temperature):
    """A chi-square test of all 60 sequences of three of five tokens; one of another distribution fails."""
    count, n = 100_000, 3
    tokens = toksample.sample(
        np.broadcast_to(ROW, (count, 5)), temperature=temperature, seed=11, n=n, replacement=False, num_threads=1
    )
    seen = Counter(map(tuple, tokens.tolist()))

    def p_value(temperature):
        masses = [int(mass) for mass in reference.mass(ROW, temperature)]
        want = dict(sequential(masses, n))
        assert set(seen) <= set(want)
        return scipy.stats.chisquare(
            [seen[places] for places in want], [float(count * probability) for probability in want.values()]
        ).pvalue

    assert p_value(temperature) > 1e-4
    assert p_value(temperature * 1.05) < 1e-6


def test_the_draws_of_a_row_are_independent_with_replacement():
    tokens = toksample.sample(np.broadcast_to(ROW, (100_000, 5)), seed=12, n=2, num_threads=1)
    table = np.zeros((5, 5))
    np.add.at(table, (tokens[:, 0], tokens[:, 1]), 1)
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-4
    masses = reference.mass(ROW, 1.0)
    for j in (0, 1):
        expected = masses / masses.sum() * len(tokens)
        assert scipy.stats.chisquare(np.bincount(tokens[:, j], minlength=5), expected).pvalue > 1e-4


@both
def test_no_token_is_drawn_twice(module):
    rng = np.random.default_rng(4)
    batch = make_rows(rng, "normal", 4, 300)
    tokens = module.sample(batch, seed=1, temperature=100.0, n=300, replacement=False)
    assert (np.sort(tokens, axis=1) == np.arange(300)).all()  # each token once


@both
def test_places_for_which_there_is_no_token(module):
    row = np.float32([0, -np.inf, 5, -100, 1])  # the mass of token 3 is 0
    tokens = module.sample(row, seed=1, n=6, replacement=False)
    assert sorted(tokens[:3].tolist()) == [0, 2, 4]
    assert tokens[3:].tolist() == [-1, -1, -1]
    assert module.sample(row, seed=1, top_k=1, n=3, replacement=False).tolist() == [2, -1, -1]
    assert module.sample(row, temperature=0, n=3, replacement=False).tolist() == [2, -1, -1]
    assert module.sample(row, temperature=0, n=3).tolist() == [2, 2, 2]
    kept = module.sample(row, seed=1, smoothing_factor=0.1, top_k=2, n=3, replacement=False)
    assert sorted(kept.tolist()) == [-1, 2, 4]


# ---- the form of the call ----------------------------------------------------------------------------------------------


@both
@replacements
def test_out_and_marks(module, replacement):
    batch = np.tile(ROW, (3, 1))
    batch[1, 2] = np.nan
    out = np.full((3, 2), 7)
    got = module.sample(batch, seed=1, n=2, replacement=replacement, out=out, errors="mark")
    assert got is out
    assert out[1].tolist() == [-1, -1]
    assert out[0].tolist() == module.sample(ROW, seed=1, n=2, replacement=replacement).tolist()
    text = "ValueError: logits must be finite or -inf, got nan at row 1, id 2"
    assert error_of(module.sample, batch, n=2, replacement=replacement) == text
    assert module.sample(batch[:0], n=2).shape == (0, 2)
    out = np.zeros(2, np.int64)
    assert module.sample(ROW, seed=1, n=2, out=out).tolist() == module.sample(ROW, seed=1, n=2).tolist()


def test_out_of_another_shape():
    rule = "out must be a writable C-contiguous int64 array of shape"
    for logits, shape, want in ((ROW, (3,), "(2,)"), (ROW, (), "(2,)"), (np.tile(ROW, (3, 1)), (3,), "(3, 2)")):
        text = f"ValueError: {rule} {want}, got int64 of shape {shape}"
        assert error_of(toksample.sample, logits, n=2, out=np.zeros(shape, np.int64)) == text


WRONG = [
    ({"n": 0}, "ValueError: n must be in [1, 65536], got 0"),
    ({"n": 65_537}, "ValueError: n must be in [1, 65536], got 65537"),
    ({"n": 1.5}, "TypeError: n must be an integer, got 1.5"),
    ({"n": 2, "replacement": None}, "TypeError: replacement must be True or False, got None"),
    ({"n": 2, "replacement": 0}, "TypeError: replacement must be True or False, got 0"),
    ({"replacement": False}, "ValueError: replacement must be True without n, got False"),
]


@both
@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=repr)
def test_errors(module, wrong, text):
    assert error_of(module.sample, ROW, seed=1, **wrong) == text


@pytest.mark.parametrize(("wrong", "text"), WRONG, ids=repr)
def test_errors_of_a_sampler(wrong, text):
    sampler = toksample.Sampler(seed=1)
    assert error_of(sampler, ROW, **wrong) == text
    assert sampler.position == 0


# ---- samplers ----------------------------------------------------------------------------------------------------------


@replacements
def test_a_sampler_draws_several_at_one_position(replacement):
    sampler = toksample.Sampler(temperature=0.7, top_k=4, seed=3)
    batch = np.stack([ROW, ROW[::-1]])
    for position in range(4):
        assert sampler.position == position
        logits = (ROW, batch)[position % 2]
        want = toksample.sample(
            logits, temperature=0.7, top_k=4, seed=3, position=position, n=3, replacement=replacement
        )
        assert_same(sampler(logits, n=3, replacement=replacement), want)
        sampler = pickle.loads(pickle.dumps(sampler))


def test_a_sampler_takes_inputs_of_the_call():
    sampler = toksample.Sampler(seed=3)
    assert 3 not in sampler(ROW, n=100, logit_bias={3: -np.inf})
    assert set(sampler(ROW, n=100, bitmask=np.int32([0b11])).tolist()) == {0, 1}


def test_a_sampler_that_remembers_its_tokens_draws_one():
    """After several tokens at one position there is no one history to go on with."""
    for params, reason in (
        ({"presence_penalty": 1.0}, "a method looks at the tokens so far, and a text goes on with one token"),
        ({"adaptive_target": 0.3}, "adaptive-p is on, which follows one token after the other"),
        ({"mirostat": 2}, "mirostat is on, which follows one token after the other"),
    ):
        sampler = toksample.Sampler(**params, seed=1)
        sampler(ROW)
        assert error_of(sampler, ROW, n=2) == f"ValueError: n must be None where {reason}, got 2"
        assert sampler.position == 1
    sampler = toksample.Sampler(presence_penalty=9.0, seed=1)
    assert 3 not in sampler(ROW, n=20, output_ids=[3])  # the caller remembers the tokens instead
    assert sampler.output_ids is None
