"""Checks how far the exact masses are from the softmax in float64, on rows that are made to break the bounds of the design.

    pytest -s tests/test_fidelity.py       # prints the largest errors for each family of rows

n tokens with the same logit have the mass n * mass(logit). So the errors of a row of 2**22 tokens in a few clusters can be
computed from the clusters alone. Some of these rows are also made in full and passed to the kernels.
"""

import math

import numpy as np
import pytest
import scipy.special
from rows import KINDS, LENGTHS, LN_2, LONG_LENGTHS, TEMPERATURES, assert_same, make_rows

import toksample
from toksample import reference

TOTAL_VARIATION = 2e-6
RELATIVE, ABSOLUTE = 1e-5, 1e-12
LARGE = 2**22
S = 41


@pytest.fixture(scope="module")
def figures():
    """Collects the largest errors of each family, and prints them at the end."""
    worst = {}
    yield worst
    print(f"\n\n{'family':<44} {'total variation':>15} {'relative error':>15}")
    for family, (variation, relative) in worst.items():
        print(f"{family:<44} {variation:>15.2e} {relative:>15.2e}")


def check(figures, family, probs, truth, counts=1):
    """Check probabilities against the true ones, along the last axis. Each stands for as many tokens as `counts` says."""
    probs, truth = np.float64(probs), np.float64(truth)
    difference = np.abs(probs - truth)
    variation = float((counts * difference).sum(axis=-1).max() / 2)
    beyond = np.maximum(difference - ABSOLUTE, 0)  # the part that the absolute bound does not cover
    with np.errstate(invalid="ignore"):
        relative = float(np.nan_to_num(beyond / truth, posinf=np.inf).max())
    seen = figures.get(family, (0.0, 0.0))
    figures[family] = (max(seen[0], variation), max(seen[1], relative))
    assert variation <= TOTAL_VARIATION, family
    assert relative <= RELATIVE, family


def true_softmax(row, temperature):
    return scipy.special.softmax(row.astype(np.float64) / temperature)


def check_row(figures, family, row, temperature):
    """Check the probabilities that `sample` draws from, and those that `softmax` returns."""
    truth = true_softmax(row, temperature)
    masses = reference.mass(row, temperature)
    check(figures, f"{family}: draws", masses.astype(np.float64) / float(masses.sum()), truth)
    check(figures, f"{family}: softmax", toksample.softmax(row, temperature), truth)


RANGE = [t for t in TEMPERATURES if 0.01 <= t <= 100] + [0.0123, 0.37, 3.3, 17.7]


def test_random_rows(figures):
    rng = np.random.default_rng(0)
    for kind in sorted(KINDS):
        for size in [*LENGTHS[::3], *LONG_LENGTHS, 32_000]:
            (row,) = make_rows(rng, kind, 1, size)
            for temperature in rng.choice(RANGE, 3):
                check_row(figures, "random rows of every kind", row, temperature)


@pytest.mark.parametrize("exponent", range(0, 23, 2))
def test_normal_rows_of_1_to_2_to_the_22_tokens(figures, exponent):
    rng = np.random.default_rng(exponent)
    for deviation in (0.1, 5.0) if exponent > 18 else (0.1, 1.0, 5.0, 20.0):
        row = (rng.standard_normal(2**exponent) * deviation).astype(np.float32)
        for temperature in (0.7,) if exponent > 18 else (0.01, 0.7, 1.5, 100.0):
            check_row(figures, "normal rows, 1 to 2**22 tokens", row, temperature)


@pytest.mark.parametrize("temperature", RANGE)
def test_real_rows(figures, real_batch, real_row, temperature):
    for row in (real_row, *real_batch):
        check_row(figures, "real rows", row, temperature)


def test_all_equal(figures):
    for size in (1, 2, 3, 1000, LARGE - 1, LARGE):
        check_row(figures, "all equal", np.full(size, -17.3, np.float32), 0.7)


# ---- adversarial tails -------------------------------------------------------------------------------------------------

POWERS = np.arange(1, 46)
PLACES = 200


def tail_logits(rng):
    """Yield a temperature, a maximum, and logits spread over each power of two of the distance below the maximum."""
    for _ in range(500):
        temperature = 10.0 ** rng.uniform(-2, 2)
        maximum = np.float32(rng.choice([0.0, 20.0, -7.3, rng.standard_normal() * 30, rng.standard_normal() * 1e4]))
        powers = POWERS[:, None] - 1 + np.sort(rng.random((len(POWERS), PLACES)))
        yield temperature, maximum, (maximum - temperature * LN_2 * powers).astype(np.float32)


def clusters(maximum, logits, temperature):
    """Return the masses and the true weights of logits in a row with this maximum, which has mass 2**S and weight 1."""
    row = np.append(logits.ravel(), maximum)
    masses = reference.mass(row, temperature)[:-1].reshape(logits.shape)
    return masses.astype(np.float64), np.exp((logits.astype(np.float64) - np.float64(maximum)) / temperature)


def check_clusters(figures, family, masses, weights, counts):
    """Check rows that consist of one token with the maximum, and of clusters of `counts` tokens along the last axis."""
    masses = np.concatenate([np.full((*masses.shape[:-1], 1), 2.0**S), masses], axis=-1)
    weights = np.concatenate([np.ones((*weights.shape[:-1], 1)), weights], axis=-1)
    counts = np.concatenate([[1], counts])
    probs = masses / (masses * counts).sum(axis=-1, keepdims=True)
    truth = weights / (weights * counts).sum(axis=-1, keepdims=True)
    check(figures, family, probs, truth, counts)


def test_flat_tails(figures):
    for temperature, maximum, logits in tail_logits(np.random.default_rng(1)):
        masses, weights = clusters(maximum, logits, temperature)
        family = "2**22 tokens tied 2**-1 to 2**-45 below"
        check_clusters(figures, family, masses[..., None], weights[..., None], [LARGE - 1])


def test_two_tails_of_opposite_error(figures):
    """This is the worst case: half of the tokens have the largest error upwards, and half the largest error downwards."""
    for temperature, maximum, logits in tail_logits(np.random.default_rng(2)):
        masses, weights = clusters(maximum, logits, temperature)
        error = masses / (weights * 2.0**S)
        places = np.stack([error.argmax(axis=1), error.argmin(axis=1)], axis=1)
        masses, weights = (np.take_along_axis(values, places, axis=1) for values in (masses, weights))
        for share in (0.3, 0.5, 0.7):
            count = round(LARGE * share)
            family = "2**22 tokens in two tails of opposite error"
            check_clusters(figures, family, masses, weights, [count, LARGE - 1 - count])


def test_clusters_beside_the_maximum(figures):
    """A few heavy tokens show the polynomial's own error. All its arguments on a grid of 2**-16 are tried."""
    steps = np.arange(2**16 + 1) / 2**16
    for power in (0, 1, 3, 7):
        logits = (-LN_2 * (power + steps)).astype(np.float32)
        masses, weights = clusters(np.float32(0), logits, 1.0)
        family = "few tokens, every argument of the polynomial"
        check_clusters(figures, family, masses[:, None], weights[:, None], [2**power])
        error = masses / (weights * 2.0**S)
        pair = [error.argmax(), error.argmin()]
        check_clusters(figures, family, masses[None, pair], weights[None, pair], [2**power, 2**power])


def test_tails_where_a_mass_is_rounded_to_0_or_to_1(figures):
    steps = np.linspace(-1.7, 1.7, 20_001)
    for temperature in (0.01, 0.7, 1.0, 3.3, 100.0):
        logits = (temperature * LN_2 * (steps - (S + 1))).astype(np.float32)
        masses, weights = clusters(np.float32(0), logits, temperature)
        assert set(masses) == {0, 1, 2}
        family = "2**22 tokens where masses round to 0, 1, 2"
        check_clusters(figures, family, masses[:, None], weights[:, None], [LARGE - 1])
        ends = [np.flatnonzero(masses == 0)[-1], np.flatnonzero(masses == 1)[0]]  # the largest roundings down and up
        check_clusters(figures, family, masses[None, ends], weights[None, ends], [LARGE // 2, LARGE // 2 - 1])


@pytest.mark.parametrize("power", [-1, -8, -15, -20, -21, -22, -23, -30, -41, -42, -43, -45])
def test_flat_tails_in_the_kernels(figures, power):
    row = np.full(LARGE, np.float32(power * LN_2))
    row[: LARGE // 2] = np.float32((power + 0.3) * LN_2)
    row[12_345] = 0
    truth = true_softmax(row, 1.0)
    ids, probs = toksample.candidates(row)
    check(figures, "flat tails, the kernels: draws", probs, truth[ids])
    check(figures, "flat tails, the kernels: softmax", toksample.softmax(row), truth)


# ---- what the bounds rest on -------------------------------------------------------------------------------------------


def test_a_mass_never_decreases_with_the_logit():
    """Try every argument that the polynomial may have: t is on a grid of 2**-22 or coarser, so there are 2**22 + 1."""
    steps = np.arange(2**22 + 1, dtype=np.float64)
    row = (-steps / 2**22).astype(np.float32)
    one = float(reference.masses.LOG2_E)  # at this temperature the scale is 1, and t is the logit + 4
    weights = reference.weight(row, one)
    assert weights[0] == 2.0**S
    assert weights[-1] == 2.0 ** (S - 1)
    assert np.all(np.diff(weights) <= 0)
    assert np.all(np.diff(reference.mass(row, one).astype(np.int64)) <= 0)


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 1.5, 100.0])
def test_a_mass_never_decreases_with_the_logit_at_other_temperatures(temperature):
    """Adjacent float32 values, from the maximum down, are rounded differently at other temperatures, but stay in order."""
    for maximum in (20.0, 0.0, -1e-3):
        spread = np.float32(temperature * 35)
        row = np.sort(np.float32(maximum) - spread * np.random.default_rng(3).random(500_000).astype(np.float32) ** 4)
        near = np.float32(maximum) - np.arange(500_000, dtype=np.float32) * abs(np.spacing(np.float32(maximum)))
        for logits in (row[::-1], near):
            assert np.all(np.diff(logits) <= 0)
            assert np.all(np.diff(reference.mass(logits, temperature).astype(np.int64)) <= 0)


def test_no_sum_of_masses_overflows():
    masses = reference.mass(np.zeros(LARGE, np.float32), 1.0)
    assert masses.max() == 2**S  # no mass is larger, because masses never decrease with the logit
    total = int(masses.max()) * LARGE
    assert total == 2**63
    assert int(masses.sum()) == total
    # The smallest and the largest word draw the first and the last token of a row with the largest total mass.
    ids = np.arange(LARGE)
    assert reference.draw(ids, masses, 0) == 0
    assert reference.draw(ids, masses, 2**64 - 1) == LARGE - 1


def test_the_longest_mass_line_is_drawn_from_end_to_end():
    row = np.zeros(LARGE, np.float32)
    words = [reference.draw_word(1, 0, position) for position in range(400)]
    for position in (int(np.argmin(words)), int(np.argmax(words))):
        token = toksample.sample(row, seed=1, position=position)
        assert token == words[position] * LARGE >> 64
    assert max(words) > 0.99 * 2**64


# The total is a sum of masses. Each is within RELATIVE of the truth, or rounded by at most a half, so its logarithm is off by
# little more than the total variation. A float32 result adds half a unit in its last place, which is 2**-24 of it.
LOG_TOTAL = 2.5e-6


@pytest.mark.parametrize("temperature", [0.01, 0.37, 1.0, 1.5, 100.0])
def test_log_softmax(real_row, temperature):
    rng = np.random.default_rng(5)
    rows = [real_row, np.zeros(LARGE, np.float32), *(make_rows(rng, kind, 1, 3000)[0] for kind in sorted(KINDS))]
    for power in (-15, -20, -21, -22, -41, -42):
        row = np.full(LARGE, np.float32(power * LN_2 * temperature))
        row[7] = 0
        rows.append(row)
    for row in rows:
        truth = scipy.special.log_softmax(row.astype(np.float64) / temperature)
        got = toksample.log_softmax(row, temperature).astype(np.float64)
        banned = truth == -np.inf
        assert np.array_equal(banned, row == -np.inf)
        beyond_float32 = truth < -float(np.finfo(np.float32).max)
        assert np.all(got[beyond_float32] == -np.inf)
        got, truth = got[~beyond_float32], truth[~beyond_float32]
        assert np.all(np.abs(got - truth) <= LOG_TOTAL + np.abs(truth) * 2.0**-24)


@pytest.mark.parametrize("temperature", [0.01, 0.37, 1.0, 1.5, 100.0])
def test_softmax_sums_to_1(real_row, real_batch, temperature):
    """A weight differs from its mass by at most a half. The factor and the product are each rounded by at most 2**-24."""
    rng = np.random.default_rng(6)
    flat = np.full(LARGE, np.float32(-42.5 * LN_2 * temperature))  # every mass rounds to 0, but no weight does
    flat[0] = 0
    rows = [real_row, *real_batch, flat, *(make_rows(rng, kind, 1, 3000)[0] for kind in sorted(KINDS))]
    for row in rows:
        total = float(reference.mass(row, temperature).sum())
        rounded = np.count_nonzero(row > -np.inf) / 2 / total
        error = abs(math.fsum(toksample.softmax(row, temperature).tolist()) - 1)
        assert error <= rounded + 2.0**-23 * (1 + rounded)


def test_probabilities_of_candidates_sum_to_1(real_row):
    for params in ({}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.01}, {"temperature": 0.0}):
        _, probs = toksample.candidates(real_row, **params)
        assert math.fsum(probs.tolist()) == pytest.approx(1, abs=len(probs) * 2.0**-53 + 2.0**-52)


def test_softmax_is_what_sample_draws_from(real_row):
    ids, probs = toksample.candidates(real_row)
    assert np.all(np.abs(toksample.softmax(real_row)[ids] - probs) <= probs * 2.0**-23 + 2.0 ** -(S + 1))
    assert_same(ids, reference.order(real_row))
