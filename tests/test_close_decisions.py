"""Draws and filters with very close decisions: words at the edge of a token or a block, shares at which a nucleus just ends.

A kernel may use bounds of the masses if both ends give the same answer. Random cases are seldom so close that they do not.
These cases are: the words are the closest of a million, and the shares come from the running sums themselves.
"""

import numpy as np
import pytest
from rows import LN_2, make_rows

import toksample
from toksample import reference

S = 41
BLOCK = 64
SEED = 77
ROWS = ["normal", "flat tail", "two tails", "few values", "thresholds", "peaked", "ascending", "real"]
rows_and_temperatures = pytest.mark.parametrize(
    ("name", "temperature"), [(name, temperature) for name in ROWS for temperature in (0.7, 1.0, 30.0)]
)


def make_row(name, real_row):
    rng = np.random.default_rng(len(name))
    if name == "real":
        return real_row
    if name == "flat tail":  # half of the mass is in blocks that each weigh little
        row = np.float32(-13 * LN_2) + rng.standard_normal(10_000).astype(np.float32) * np.float32(0.01)
        row[1234] = 0
        return row
    if name == "two tails":
        row = np.full(9_000, np.float32(-20 * LN_2))
        row[::3] = np.float32(-12 * LN_2)
        row[5000] = 0
        return row
    return make_rows(rng, name, 1, 6_000)[0]


def words_of_positions(count):
    """Return the random words of SEED, stream 0, at positions 0, 1, 2 …

    numpy counts up before it draws, so its counter starts at -1. It draws four words for each count.
    """
    last = 2**64 - 1
    generator = np.random.Philox(key=np.array([SEED, 0], np.uint64), counter=np.array([last] * 4, np.uint64))
    words = generator.random_raw(4 * count).reshape(count, 4)[:, 0]
    assert [int(word) for word in words[:3]] == [reference.draw_word(SEED, 0, p) for p in range(3)]
    return words


def closest(words, edges, total, count):
    """Return the positions whose words come closest to an edge between two tokens or blocks."""
    targets = words.astype(np.float64) * 2.0**-64
    edges = edges.astype(np.float64) / float(total)
    after = np.minimum(np.searchsorted(edges, targets), len(edges) - 1)
    distance = np.minimum(np.abs(edges[after] - targets), np.abs(edges[np.maximum(after, 1) - 1] - targets))
    return np.argpartition(distance, count)[:count]


@rows_and_temperatures
def test_words_at_the_edge_of_a_token_or_a_block(real_row, name, temperature):
    row = make_row(name, real_row)
    masses = reference.mass(row, temperature)
    running = np.cumsum(masses)
    total = int(running[-1])
    words = words_of_positions(2**20)
    by_token = closest(words, running, total, 300)
    by_block = closest(words, running[BLOCK - 1 :: BLOCK], total, 300)
    positions = np.concatenate([by_token, by_block, [words.argmin(), words.argmax()]])
    targets = [(int(word) * total) >> 64 for word in words[positions]]
    want = np.searchsorted(running, np.array(targets, np.uint64), side="right")
    rows = np.broadcast_to(row, (len(positions), len(row)))
    got = toksample.sample(rows, temperature=temperature, seed=SEED, stream=0, position=positions, num_threads=1)
    assert np.flatnonzero(got != want).tolist() == []
    ids = np.arange(len(row))
    for place in (0, 300, 601):
        assert reference.draw(ids, masses, int(words[positions[place]])) == want[place]


def neighbours(p):
    """Return a share, the floats next to it, and some near it."""
    below, above = np.nextafter(p, 0), np.nextafter(p, 1)
    return [below, p, above, np.nextafter(below, 0), np.nextafter(above, 1), p * (1 - 2.0**-30), p * (1 + 2.0**-30)]


@rows_and_temperatures
@pytest.mark.parametrize("top_k", [0, 999, 4_000])
def test_shares_at_which_a_nucleus_ends(real_row, name, temperature, top_k):
    row = make_row(name, real_row)
    order = reference.order(row)
    masses = reference.mass(row, temperature)[order]
    masses = masses[slice(*reference.filters.keep_top_k(masses, top_k))]
    running = np.cumsum(masses)
    ends = np.unique(np.geomspace(1, len(running), 20 if name == "real" else 60).astype(int)) - 1
    shares = np.unique([p for end in ends for p in neighbours(float(running[end]) / float(running[-1])) if 0 < p <= 1])
    want = [reference.filters.keep_top_p(masses, float(p))[1] for p in shares]
    rows = np.broadcast_to(row, (len(shares), len(row)))
    masked = toksample.mask_logits(rows, temperature=temperature, top_k=top_k, top_p=shares)
    kept = masked != -np.inf
    assert np.count_nonzero(kept, axis=1).tolist() == want
    for b in range(0, len(shares), 17):
        assert np.flatnonzero(kept[b]).tolist() == np.sort(order[: want[b]]).tolist()


@rows_and_temperatures
def test_shares_at_which_min_p_ends(real_row, name, temperature):
    row = make_row(name, real_row)
    masses = reference.mass(row, temperature)
    chosen = np.unique(masses)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, 40).astype(int))]
    shares = np.unique([p for mass in chosen for p in neighbours(float(mass) / 2.0**S) if 0 <= p <= 1])
    want = [int(np.count_nonzero(masses >= np.uint64(np.ceil(p * 2.0**S)))) for p in shares]
    rows = np.broadcast_to(row, (len(shares), len(row)))
    masked = toksample.mask_logits(rows, temperature=temperature, min_p=shares)
    assert np.count_nonzero(masked != -np.inf, axis=1).tolist() == want


@rows_and_temperatures
@pytest.mark.parametrize("filters", [{}, {"top_k": 999}, {"top_p": 0.99}, {"typical_p": 0.8}], ids=str)
@pytest.mark.parametrize("name_of_filter", ["epsilon_cutoff", "top_a"])
def test_least_probabilities_at_which_a_token_is_kept(real_row, name, temperature, filters, name_of_filter):
    row = make_row(name, real_row)
    _, masses = reference.survivors(row, reference.Filters(temperature=temperature, **filters))
    first, total = int(masses[0]), int(masses.sum())
    chosen = np.unique(masses)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, 40).astype(int))].tolist()
    if name_of_filter == "epsilon_cutoff":
        at, keep = [mass / total for mass in chosen], reference.filters.keep_epsilon_cutoff
    else:
        at, keep = [mass * total / first**2 for mass in chosen], reference.filters.keep_top_a
    values = np.unique([p for value in at for p in neighbours(value) if 0 <= p <= 1] + [1.0])
    want = [keep(masses, float(value))[1] for value in values]
    rows = np.broadcast_to(row, (len(values), len(row)))
    masked = toksample.mask_logits(rows, temperature=temperature, **filters, **{name_of_filter: values})
    assert np.count_nonzero(masked != -np.inf, axis=1).tolist() == want
