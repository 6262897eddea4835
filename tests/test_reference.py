"""The reference, which defines every answer, compared with obvious code: fractions, Python loops, float64, numpy's Philox."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rows import filter_params, rows, word

import toksample
from toksample import reference
from toksample._series import exp2, log2

S = 41


# ---- mass and order ----------------------------------------------------------------------------------------------------


def test_masses_of_powers_of_two():
    powers = np.arange(0, 46)
    masses = reference.mass((-powers).astype(np.float32), float(reference.masses.LOG2_E))  # scale is 1
    assert masses.dtype == np.uint64
    assert masses.tolist() == [
        2 ** (S - p) if p <= S else 0 for p in range(46)
    ]  # 2**-1 is halfway, and rounds to even: 0


@given(row=rows, temperature=st.floats(0.01, 100))
def test_masses_are_the_softmax(row, temperature):
    x = row.astype(np.float64)
    exact = 2.0**S * np.exp((x - x.max()) / temperature)
    masses = reference.mass(row, temperature).astype(np.float64)
    # This is for thousands of tokens. test_fidelity has rows of 2**22.
    assert np.all(np.abs(masses - exact) <= 4e-6 * exact + 0.5 + 1e-9)
    assert np.all(masses[row == row.max()] == 2.0**S)


@given(row=rows)
def test_order(row):
    want = sorted(range(len(row)), key=lambda i: (-float(row[i]), i))
    assert reference.order(row).tolist() == want


def test_order_of_zeros_is_that_of_their_ids():
    assert reference.order(np.float32([-0.0, 0.0, -0.0, 1e-45, -1e-45])).tolist() == [3, 0, 1, 2, 4]


# ---- filters -----------------------------------------------------------------------------------------------------------


def obvious_survivors(row, masses, surprises, params):
    """Return the ids that survive, from the masses of the row, with loops and exact fractions."""
    ids = sorted((i for i in range(len(row)) if row[i] > -np.inf), key=lambda i: (-float(row[i]), i))
    if params["temperature"] == 0:
        return ids[:1]
    if params["top_k"] > 0:
        ids = ids[: params["top_k"]]
    if params["top_p"] < 1:
        total = sum(masses[i] for i in ids)
        # The mass that is needed is a float64 product, rounded up.
        need = min(total, max(1, math.ceil(Fraction(params["top_p"] * float(total)))))
        kept, running = [], 0
        for i in ids:
            kept.append(i)
            running += masses[i]
            if running >= need:
                break
        ids = kept
    least = Fraction(params["min_p"]) * 2**S
    ids = [i for i in ids if masses[i] >= least]
    if params["typical_p"] < 1:
        ids = obvious_typical(ids, masses, surprises, params["typical_p"])
    first, total = masses[ids[0]], sum(masses[i] for i in ids)
    if params["epsilon_cutoff"] > 0:
        # The least mass is also computed in float64.
        least = params["epsilon_cutoff"] * float(total)
        ids = [i for i in ids if masses[i] == first or (masses[i] > 0 and masses[i] >= Fraction(least))]
        total = sum(masses[i] for i in ids)
    if params["top_a"] > 0:
        least = params["top_a"] * float(first) * float(first) / float(total)
        ids = [i for i in ids if masses[i] == first or (masses[i] > 0 and masses[i] >= Fraction(least))]
    if params["eta_cutoff"] > 0:
        total = sum(masses[i] for i in ids)
        bits = log2(total) - S + float(sum(masses[i] * surprises[i] for i in ids)) / float(total) / 2**22
        least = min(params["eta_cutoff"], math.sqrt(params["eta_cutoff"]) * exp2(-bits)) * float(total)
        ids = [i for i in ids if masses[i] == first or (masses[i] > 0 and masses[i] >= Fraction(least))]
    if params["top_n_sigma"] > 0:
        ids = obvious_top_n_sigma(row, ids, params["top_n_sigma"])
    if params["tfs"] < 1:
        ids = obvious_tfs(ids, masses, params["tfs"])
    if params["top_h"] > 0:
        ids = obvious_top_h(ids, masses, surprises, params["top_h"])
    return ids


def obvious_top_n_sigma(row, ids, n):
    """Return those of the ids that top_n_sigma keeps."""
    first = row[ids[0]]
    with np.errstate(over="ignore"):
        distances = [round(1024 * min(float(first - row[i]), 1024)) for i in ids]
    squares = len(ids) * sum(d * d for d in distances) - sum(distances) ** 2
    floor = float(first) - n * (math.sqrt(float(squares)) / len(ids) / 1024)
    return [i for i in ids if float(row[i]) >= floor]


def obvious_tfs(ids, masses, z):
    """Return those of the ids that tfs keeps."""
    three = [(masses[a], masses[b], masses[c]) for a, b, c in zip(ids, ids[1:], ids[2:], strict=False)]
    bends = [abs((a - b) - (b - c)) for a, b, c in three]
    for count in range(1, len(bends)):
        if sum(bends[: count + 1]) > Fraction(z * float(sum(bends))):
            return ids[:count]
    return ids


def obvious_top_h(ids, masses, surprises, h):
    """Return those of the ids that top_h keeps."""
    ids = ids[:100]
    base = round((log2(sum(masses[i] for i in ids)) - S) * 2**22)
    parts = [masses[i] * max(0, base + surprises[i]) for i in ids]
    count = 1
    while count < len(ids) and float(sum(parts[: count + 1])) <= h * float(sum(parts)):
        count += 1
    return ids[:count]


def obvious_typical(ids, masses, surprises, p):
    """Return those of the ids that typical_p keeps."""
    total = sum(masses[i] for i in ids)
    expected = Fraction(sum(masses[i] * surprises[i] for i in ids), total)
    mean = math.floor(expected + Fraction(1, 2))
    need = min(total, max(1, math.ceil(Fraction(p * float(total)))))
    for distance in sorted({abs(surprises[i] - mean) for i in ids}):
        near = [i for i in ids if abs(surprises[i] - mean) <= distance]
        if sum(masses[i] for i in near) >= need:
            return near
    raise AssertionError("no distance is enough")


@given(row=rows, params=filter_params)
def test_survivors(row, params):
    off = {"dynatemp_range": 0.0, "smoothing_factor": 0.0, "mirostat": 0, "adaptive_target": -1.0}
    params |= off  # test_adaptive.py and test_adaptive_p.py test these
    if params["temperature"] == 0:
        masses, surprises = [2**S] * len(row), [0] * len(row)
    else:
        masses = reference.mass(row, params["temperature"]).tolist()
        surprises = reference.surprise(row, params["temperature"]).tolist()
    want = obvious_survivors(row, masses, surprises, params)
    ids, kept_masses = reference.survivors(row, reference.Filters(**params))
    assert ids.tolist() == want
    assert kept_masses.tolist() == [masses[i] for i in want]


def kept(probabilities, **params):
    """Return how many tokens with these probabilities survive, after a check that kernels and reference agree."""
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(probabilities)).astype(np.float32)
    (ids, _), (same, _) = reference.candidates(logits, **params), toksample.candidates(logits, **params)
    assert ids.tolist() == same.tolist()
    return ids.tolist()


# "The smallest prefix whose sum is at least p": what llama.cpp, transformers and Holtzman et al. keep. At p = 0.5 and 0.75
# the sum is exactly p, and a rule with > instead of >= would keep one more token.
@pytest.mark.parametrize(
    ("probabilities", "top_p", "want"),
    [
        ([0.5, 0.25, 0.25], 0.5, [0]),
        ([0.5, 0.25, 0.25], 0.75, [0, 1]),
        ([0.5, 0.25, 0.25], 0.6, [0, 1]),
        ([0.5, 0.25, 0.25], np.nextafter(0.5, 1), [0, 1]),
        ([0.5, 0.25, 0.25], np.nextafter(0.75, 1), [0, 1, 2]),
        ([0.5, 0.25, 0.25], np.nextafter(0.75, 0), [0, 1]),
        ([0.5, 0.3, 0.2], 0.7, [0, 1]),
        ([0.25, 0.25, 0.5], 0.75, [2, 0]),
        ([0.25] * 4, 0.25, [0]),
        ([0.25] * 4, 0.5, [0, 1]),
        ([0.25] * 4, 0.7500001, [0, 1, 2, 3]),
        ([1.0], 5e-324, [0]),
        ([0.5, 0.5], 5e-324, [0]),
        ([0.5, 0.5, 0.0], 1.0, [0, 1]),
        ([0.5, 0.5, 1e-30], 1 - 2**-53, [0, 1]),
        ([0.5, 0.5, 1e-30], 1.0, [0, 1, 2]),
    ],
)
def test_top_p_boundary(probabilities, top_p, want):
    assert kept(probabilities, top_p=float(top_p)) == want


@pytest.mark.parametrize(
    ("top_k", "want"),
    [
        (1, [1]),
        (2, [1, 3]),
        (3, [1, 3, 4]),
        (4, [1, 3, 4, 0]),
        (0, [1, 3, 4, 0, 2]),
        (5, [1, 3, 4, 0, 2]),
        (6, [1, 3, 4, 0, 2]),
    ],
)
def test_top_k_cuts_ties_by_id(top_k, want):
    assert kept([0.1, 0.3, 0.1, 0.3, 0.3], top_k=top_k) == want


@pytest.mark.parametrize(
    ("min_p", "want"),
    [
        (1.0, [1, 2]),
        (1 - 2.0**-42, [1, 2]),
        (0.5, [1, 2, 0, 4]),
        (np.nextafter(0.5, 0), [1, 2, 0, 4]),
        (0.5 + 2.0**-40, [1, 2]),
        (0.25, [1, 2, 0, 4, 3]),
        (5e-324, [1, 2, 0, 4, 3]),
        (0.0, [1, 2, 0, 4, 3, 5]),
    ],
)
def test_min_p_keeps_ties(min_p, want):
    assert kept([0.2, 0.4, 0.4, 0.1, 0.2, 1e-30], min_p=float(min_p)) == want


def test_filters_apply_in_their_order():
    # 0.4 is half of the mass that top_k keeps. top_p is a share of what is left, and not of the whole.
    assert kept([0.4, 0.2, 0.2, 0.1, 0.1], top_k=3, top_p=0.5) == [0]
    assert kept([0.4, 0.2, 0.2, 0.1, 0.1], top_p=0.5) == [0, 1]
    # min_p is a share of the largest probability, so it does not matter what was dropped.
    assert kept([0.4, 0.2, 0.2, 0.1, 0.1], top_p=0.95, min_p=0.5) == [0, 1, 2]


@given(row=rows, params=filter_params)
def test_the_best_token_survives_all_filters_but_typical_p(row, params):
    ids, _ = reference.candidates(
        row, **params | {"typical_p": 1.0, "smoothing_factor": 0.0}
    )  # smoothing may make tokens equal
    assert ids[0] == np.argmax(row)
    assert np.all(row[ids] > -np.inf)


# ---- the draw ----------------------------------------------------------------------------------------------------------

LAST = 2**64 - 1


def numpys_words(key, counter):
    """Return the four words of numpy's generator for a counter. numpy adds one to its counter before it draws."""
    number = sum(c << (64 * i) for i, c in enumerate(counter))
    before = (number - 1) % 2**256
    counter = [(before >> (64 * i)) & LAST for i in range(4)]
    generator = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    return tuple(int(w) for w in generator.random_raw(4))


@given(key=st.tuples(word, word), counter=st.tuples(word, word, word, word))
def test_philox_is_numpys(key, counter):
    assert reference.philox4x64(key, counter) == numpys_words(key, counter)


# numpy's counter carries from one word to the next here, and wraps around at the end.
@pytest.mark.parametrize(
    "counter",
    [(0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (LAST,) * 4, (LAST, 0, 0, 0), (LAST, LAST, 0, 0)],
)
def test_philox_where_the_counter_wraps(counter):
    for key in ((0, 0), (1, 0), (LAST, LAST)):
        assert reference.philox4x64(key, counter) == numpys_words(key, counter)


# Random123's known answers for philox4x64 with 10 rounds.
@pytest.mark.parametrize(
    ("key", "counter", "want"),
    [
        ((0, 0), (0, 0, 0, 0), "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ((LAST, LAST), (LAST,) * 4, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox_known_answers(key, counter, want):
    assert reference.philox4x64(key, counter) == tuple(int(w, 16) for w in want.split())


@given(seed=word, stream=word, position=word)
def test_draw_word(seed, stream, position):
    assert reference.draw_word(seed, stream, position) == numpys_words((seed, 0), (position, stream, 0, 0))[0]


@given(
    masses=hnp.arrays(np.uint64, st.integers(1, 40), elements=st.one_of(st.integers(0, 3), st.integers(0, 2**S))),
    word=word,
    rng=st.randoms(use_true_random=False),
)
def test_draw(masses, word, rng):
    assume(masses.any())
    ids = sorted(rng.sample(range(1000), len(masses)))
    target = Fraction(word, 2**64) * sum(masses.tolist())
    running = 0
    for token, mass in zip(ids, masses.tolist(), strict=True):
        running += mass
        if running > math.floor(target):
            want = token
            break
    assert mass > 0
    order = rng.sample(range(len(ids)), len(ids))  # the draw goes by the ids, so their order does not matter
    assert reference.draw(np.array(ids)[order], masses[order], word) == want


def test_draw_hits_every_token_at_its_edges():
    ids, masses = np.array([3, 1, 7]), np.array([1, 2, 1], np.uint64)
    quarter = 2**62
    words = [0, 2 * quarter - 1, 2 * quarter, 3 * quarter - 1, 3 * quarter, 4 * quarter - 1]
    assert [reference.draw(ids, masses, word) for word in words] == [1, 1, 3, 3, 7, 7]


def test_known_tokens():
    """A seed gives these tokens for ever: texts that were recorded with their seeds can be made again."""
    assert [hex(reference.draw_word(1, 0, p)) for p in range(2)] == ["0xcb7ea744cf19bb4c", "0x4db6a27b756282df"]
    logits = np.log(np.arange(1, 101, dtype=np.float32))
    tokens = toksample.sample(np.tile(logits, (4, 1)), seed=2024, position=[0, 1, 0, 1], stream=[0, 0, 1, 1])
    assert tokens.tolist() == [88, 86, 97, 25]


# ---- functions ---------------------------------------------------------------------------------------------------------


@given(row=rows)
def test_top_k_is_a_stable_sort(row):
    for k in {1, (len(row) + 1) // 2, len(row)}:
        values, ids = reference.top_k(row, k)
        want = sorted(range(len(row)), key=lambda i: (-float(row[i]), i))[:k]
        assert ids.tolist() == want
        assert values.tobytes() == row[want].tobytes()


@given(row=rows)
def test_argmax_is_numpys(row):
    assert reference.argmax(row) == np.argmax(row)
    assert reference.sample(row, temperature=0) == np.argmax(row)


@given(row=rows, params=filter_params)
def test_mask_logits_keeps_the_candidates(row, params):
    ids, _ = reference.candidates(row, **params)
    want = np.full(len(row), -np.inf, np.float32)
    want[ids] = row[ids]
    assert reference.mask_logits(row, **params).tobytes() == want.tobytes()


@given(row=rows, temperature=st.one_of(st.just(0.0), st.floats(0.01, 100)))
def test_softmax_is_the_mass_over_the_total(row, temperature):
    probs = reference.softmax(row, temperature)
    if temperature == 0:
        assert probs.tolist() == [float(i == np.argmax(row)) for i in range(len(row))]
        assert reference.log_softmax(row, 0).tolist() == [0.0 if p else -math.inf for p in probs]
        return
    masses = reference.mass(row, temperature)
    total = int(masses.sum())
    for p, mass in zip(probs.tolist(), masses.tolist(), strict=True):
        assert (
            abs(Fraction(p) - Fraction(mass, total))
            <= Fraction(mass, total) * Fraction(1, 2**23) + Fraction(0.51) / total
        )
