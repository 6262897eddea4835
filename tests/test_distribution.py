"""Drawn tokens have the distribution of the float64 softmax: chi-square tests at fixed seeds, and so with fixed outcomes.

A test passes if p > 1e-4. With random seeds, about 60 tests like these would fail a correct sampler in one run of 160. These
seeds are fixed, and were not chosen for their outcome. To show the power of the tests, each test of a distribution is repeated
with a temperature that is 2 percent off, or with one token 10 percent too probable, and must then reject.
"""

import numpy as np
import pytest
import scipy.special
import scipy.stats

import toksample

LEAST_P = 1e-4
DRAWS = 400_000
ROWS = 2_000  # the rows of a call, which differ in the seed, the position or the stream


def obvious_probabilities(row, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Apply the filters in float64. This is right for rows without ties and without sums that only just reach p."""
    probs = scipy.special.softmax(row.astype(np.float64) / temperature)
    order = np.argsort(-probs)
    if top_k:
        order = order[:top_k]
    share = np.cumsum(probs[order]) / probs[order].sum()
    order = order[: np.searchsorted(share, top_p) + 1]
    order = order[probs[order] >= min_p * probs.max()]
    kept = np.zeros_like(probs)
    kept[order] = probs[order]
    return kept / kept.sum()


def draws(row, word, **params):
    """Draw DRAWS tokens from one row; `word` gives seed, stream and position from the number of the draw."""
    rows = np.broadcast_to(row, (ROWS, len(row)))
    calls = np.arange(DRAWS, dtype=np.uint64).reshape(-1, ROWS)
    return np.concatenate([toksample.sample(rows, **params, **word(call)) for call in calls])


def p_value(tokens, probs):
    """Return the p-value of the chi-square test that the tokens have these probabilities."""
    assert not np.any(probs[np.unique(tokens)] == 0), "a token that should not be drawn was"
    counts = np.bincount(tokens, minlength=len(probs))
    order = np.argsort(-probs, kind="stable")
    expected = probs[order] * len(tokens)
    # Classes with fewer than 10 expected draws are merged.
    group = np.minimum(np.arange(len(probs)), np.count_nonzero(expected >= 10))
    observed = np.bincount(group, counts[order])
    expected = np.bincount(group, expected)
    kept = expected > 0
    return scipy.stats.chisquare(observed[kept], expected[kept] * (observed.sum() / expected.sum())).pvalue


WORDS = {
    "over positions": lambda n: {"seed": 1, "stream": 0, "position": n},
    "over seeds": lambda n: {"seed": n, "stream": 0, "position": 0},
    "over streams": lambda n: {"seed": 1, "stream": n, "position": 0},
    "over positions at the end of the range": lambda n: {"seed": 2**64 - 1, "stream": 5, "position": 2**64 - 1 - n},
}
words = pytest.mark.parametrize("word", WORDS.values(), ids=WORDS.keys())


def make_rows():
    rng = np.random.default_rng(2024)
    return {
        "16 normal logits": rng.standard_normal(16).astype(np.float32),
        "200 normal logits": (2 * rng.standard_normal(200)).astype(np.float32),
        "4 tokens": np.float32([0.1, -1.2, 1.0, 0.4]),
        "1,000 descending": np.float32(-0.97) * np.log(np.arange(1, 1001, dtype=np.float32)),
    }


ROW_NAMES = sorted(make_rows())
PARAMETER_SETS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 12},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.2, "top_k": 100, "top_p": 0.95, "min_p": 0.01},
]


@words
@pytest.mark.parametrize("name", ROW_NAMES)
def test_tokens_have_the_probabilities_of_the_softmax(name, word):
    row = make_rows()[name]
    tokens = draws(row, word, temperature=0.8)
    assert p_value(tokens, obvious_probabilities(row, 0.8)) > LEAST_P
    assert p_value(tokens, obvious_probabilities(row, 0.8 * 1.02)) < 1e-6
    assert p_value(tokens, obvious_probabilities(row, 0.8 / 1.02)) < 1e-6


@pytest.mark.parametrize("params", PARAMETER_SETS, ids=repr)
@pytest.mark.parametrize("name", ROW_NAMES)
def test_tokens_have_the_probabilities_that_the_filters_leave(name, params):
    row = make_rows()[name]
    tokens = draws(row, WORDS["over positions"], **params)
    probs = obvious_probabilities(row, **params)
    assert p_value(tokens, probs) > LEAST_P
    biased = probs.copy()
    biased[probs.argmax()] *= 1.1
    assert p_value(tokens, biased / biased.sum()) < 1e-6


def test_tokens_of_a_real_row(real_row):
    params = {"temperature": 1.0, "top_p": 0.9}
    rows = np.broadcast_to(real_row, (500, len(real_row)))
    tokens = np.concatenate([toksample.sample(rows, **params, seed=7, position=p) for p in range(8)])
    ids, _ = toksample.candidates(real_row, **params)
    want = np.zeros(len(real_row))
    want[ids] = scipy.special.softmax(real_row[ids].astype(np.float64))
    assert 50 < len(ids) < 5_000
    assert p_value(tokens, want) > LEAST_P
    power = want**1.2 / (want**1.2).sum()  # 4,000 draws can only tell temperatures apart that differ more
    assert p_value(tokens, power) < 1e-4


# ---- independence ------------------------------------------------------------------------------------------------------

LOGITS = np.float32([0.0, 0.5, -0.5, 1.0, 0.2])


def independence(first, second):
    """Return the p-value of the chi-square test that two sequences of tokens are independent."""
    table = np.zeros((len(LOGITS), len(LOGITS)))
    np.add.at(table, (first, second), 1)
    return scipy.stats.chi2_contingency(table).pvalue


PAIRS = {
    "consecutive positions": lambda n: {"seed": 3, "stream": 0, "position": n},
    "consecutive streams": lambda n: {"seed": 3, "stream": n, "position": 0},
    "consecutive seeds": lambda n: {"seed": n, "stream": 0, "position": 0},
    "positions 2**32 apart": lambda n: {"seed": 3, "stream": 0, "position": n << np.uint64(32)},
    "positions and streams": lambda n: {"seed": 3, "stream": n % np.uint64(2), "position": n // np.uint64(2)},
    "streams and seeds": lambda n: {"seed": n // np.uint64(2), "stream": n % np.uint64(2), "position": 0},
}


@pytest.mark.parametrize("word", PAIRS.values(), ids=PAIRS.keys())
def test_neighbours_are_independent(word):
    tokens = draws(LOGITS, word)
    for apart in (1, 2, 3):
        assert independence(tokens[:-apart:2], tokens[apart::2][: len(tokens[:-apart:2])]) > LEAST_P


def test_equal_rows_of_a_batch_are_independent():
    rows = np.tile(LOGITS, (4, 1))
    tokens = np.stack([toksample.sample(rows, seed=9, position=p) for p in range(50_000)])
    for a in range(4):
        assert p_value(tokens[:, a], obvious_probabilities(LOGITS)) > LEAST_P
        for b in range(a):
            assert independence(tokens[:, a], tokens[:, b]) > LEAST_P
            assert independence(tokens[:-1, a], tokens[1:, b]) > LEAST_P


def test_the_test_of_independence_rejects_what_depends():
    tokens = draws(LOGITS, PAIRS["consecutive positions"])
    repeated = tokens.copy()
    repeated[1::50] = tokens[::50]  # every fiftieth token repeats its neighbour
    assert independence(repeated[:-1:2], repeated[1::2]) < 1e-6
