"""Measures how far each method is from its formula in float64: ``python benches/distances.py``.

It prints the table in ``docs/sampling-methods.md``. The rows are random, with 10 to 30,000 normal logits, and so are the
temperature, from 0.3 to 3, and the parameter of the method, within typical values. The formulas are those of that page. They
take sums in float64, which toksample takes as integers. 10,000 rows for each method take about a minute.
"""

import argparse
import math

import numpy as np

import toksample
from toksample.reference import masses


def softmax(x):
    """Return probabilities in float64."""
    e = np.exp(x - x.max())
    return e / e.sum()


def entropy(p):
    """Return the entropy in nats; a probability of 0 adds nothing."""
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def prefix(p, count):
    """Return the probabilities with 0 for all but the first tokens."""
    return np.where(np.arange(len(p)) < max(1, count), p, 0)


# Each formula takes the logits in descending order, their probabilities at the temperature, and the parameter. It returns the
# weights by which a token is drawn, with 0 for what is dropped.


def top_p(x, p, value):
    return prefix(p, np.searchsorted(np.cumsum(p), value) + 1)


def min_p(x, p, value):
    return np.where(p >= value * p[0], p, 0)


def typical_p(x, p, value):
    distances = np.abs(-np.log(p) - entropy(p))
    ids = np.argsort(distances, kind="stable")
    last = ids[min(np.searchsorted(np.cumsum(p[ids]), value), len(p) - 1)]
    return np.where(distances <= distances[last], p, 0)


def epsilon_cutoff(x, p, value):
    return np.where((p >= value) | (p == p[0]), p, 0)


def top_a(x, p, value):
    return np.where(p >= value * p[0] ** 2, p, 0)


def eta_cutoff(x, p, value):
    return epsilon_cutoff(x, p, min(value, math.sqrt(value) * math.exp(-entropy(p))))


def top_n_sigma(x, p, value):
    return np.where(x >= x[0] - value * x.std(), p, 0)


def tfs(x, p, value):
    bends = np.cumsum(np.abs(np.diff(p, 2)))
    beyond = np.flatnonzero(bends > value * bends[-1])
    return prefix(p, next((i for i in beyond if i >= 1), len(p)))


def top_h(x, p, value):
    q = p[:100] / p[:100].sum()
    part = np.cumsum(-q * np.log(q))
    return prefix(p, np.count_nonzero(part <= value * part[-1]))


def xtc_threshold(x, p, value):
    count = np.count_nonzero(p >= value)
    return np.where(np.arange(len(p)) >= count - 1, p, 0)


def mirostat_v1(x, p, value):
    n = min(len(p), 100)
    b, t = -np.log2(p[:n]), np.log2(np.arange(2, n + 1) / np.arange(1, n))
    s = (t * np.diff(b)).sum() / (t * t).sum()
    return prefix(p, math.floor(((s - 1) * 2**value / (1 - len(p) ** (1 - s))) ** (1 / s)))


def mirostat_v2(x, p, value):
    return np.where((-np.log2(p) <= value) | (p == p[0]), p, 0)


def dynatemp_range(x, p, value):
    p = softmax(x)
    low, high = max(0.0, 1.0 - value), 1.0 + value
    return softmax(x / (low + (high - low) * (entropy(p) / math.log(len(p)))))


def smoothing_factor(x, p, value):
    return softmax(x[0] - value * (x[0] - x) ** 2)


def adaptive_target(x, p, value):
    d = np.abs(p - value) / 0.3
    return np.exp(-10 * d**2 / (1 + d))


METHODS = {
    top_p: (lambda value: {"top_p": value}, 0.5, 0.99),
    min_p: (lambda value: {"min_p": value}, 0.01, 0.2),
    typical_p: (lambda value: {"typical_p": value}, 0.2, 0.95),
    epsilon_cutoff: (lambda value: {"epsilon_cutoff": value}, 3e-4, 2e-3),
    top_a: (lambda value: {"top_a": value}, 0.04, 0.2),
    eta_cutoff: (lambda value: {"eta_cutoff": value}, 3e-4, 2e-3),
    top_n_sigma: (lambda value: {"top_n_sigma": value}, 0.5, 3.0),
    tfs: (lambda value: {"tfs": value}, 0.8, 0.99),
    top_h: (lambda value: {"top_h": value}, 0.2, 0.8),
    xtc_threshold: (lambda value: {"xtc_threshold": value, "xtc_probability": 1.0}, 0.001, 0.2),
    mirostat_v1: (lambda value: {"mirostat": 1, "mirostat_mu": value}, 3.0, 12.0),
    mirostat_v2: (lambda value: {"mirostat": 2, "mirostat_mu": value}, 3.0, 12.0),
    dynatemp_range: (lambda value: {"dynatemp_range": value, "temperature": 1.0}, 0.1, 1.0),
    smoothing_factor: (lambda value: {"smoothing_factor": value, "temperature": 1.0}, 0.1, 0.5),
    adaptive_target: (lambda value: {"adaptive_target": value}, 0.05, 0.7),
}
"""For each formula, the keywords of a call, and the range of the parameter."""


def random_row(rng):
    """Return a row of random length, and a temperature."""
    size = int(10 ** rng.uniform(1, math.log10(30_000)))
    return rng.standard_normal(size).astype(np.float32), rng.uniform(0.3, 3)


def measure(formula, rows, rng):
    """Return in how many rows another set is kept, and the largest total variation in the others."""
    keywords, low, high = METHODS[formula]
    others, largest = 0, 0.0
    for _ in range(rows):
        row, temperature = random_row(rng)
        value = rng.uniform(low, high)
        ids, probs = toksample.candidates(row, **({"temperature": temperature} | keywords(value)))
        places = np.argsort(-row, kind="stable")
        x = row[places].astype(np.float64)
        weights = np.zeros(len(row))
        weights[places] = formula(x, softmax(x / temperature), value)
        if not np.array_equal(np.sort(ids), np.flatnonzero(weights)):
            others += 1
            continue
        largest = max(largest, np.abs(weights[ids] / weights.sum() - probs).sum() / 2)
    return others, largest


def measure_moments(rows, rng):
    """Return the largest error of the entropy in bits, and of the standard deviation, the latter also as a share of itself."""
    errors = np.zeros(3)
    for _ in range(rows):
        row, temperature = random_row(rng)
        row = -np.sort(-row)
        x = row.astype(np.float64)
        bits = entropy(softmax(x / temperature)) / math.log(2)
        of_entropy = abs(masses.entropy(masses.mass(row, temperature), masses.surprise(row, temperature)) - bits)
        of_sigma = abs(masses.sigma(row) - x.std())
        errors = np.maximum(errors, [of_entropy, of_sigma, of_sigma / x.std()])
    return errors.tolist()


def main():
    """Print a line of the table for each method, and then the errors of what some of them compute on the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="how many rows for each method (default: %(default)s)")
    rows = parser.parse_args().rows
    print("| method | rows in which another set is kept | largest total variation in the others |\n|---|---|---|")
    for formula in METHODS:
        others, largest = measure(formula, rows, np.random.default_rng(1))
        print(f"| `{formula.__name__}` | {others} of {rows:,} | {largest:.1e} |", flush=True)
    of_entropy, of_sigma, share = measure_moments(rows, np.random.default_rng(1))
    print(f"\nentropy: {of_entropy:.1e} bits; standard deviation: {of_sigma:.1e}, or {share:.1e} of itself")


if __name__ == "__main__":
    main()
