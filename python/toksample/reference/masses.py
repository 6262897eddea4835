"""The exact mass of a token, and the total order of the tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample._series import log2

Row = npt.NDArray[np.float32]
Logits = npt.NDArray[Any]  # float32 or float64
Masses = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]

S = 41
"""The most probable token has a mass of 2**S. A row of 2**22 tokens sums to at most 2**63."""

LOG2_E = np.float64(1.4426950408889634)

# 2**f is nearly 1 + C1*f + ... + C5*f**5 for f in [-0.5, 0.5]: within 1.9e-7 of itself as computed in float32.
C1, C2, C3, C4, C5 = np.array(
    [0.693147, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149], np.float32
)


def exponent(row: Row, temperature: float) -> Row:
    """Return 4 and the binary logarithm of each token's probability over that of the most probable one; at least -60.

    It is on a grid of 2**-22, on which the polynomial of :func:`weight` never decreases.
    """
    with np.errstate(over="ignore"):
        scale = np.clip(np.float32(LOG2_E / temperature), np.finfo(np.float32).tiny, np.finfo(np.float32).max)
        t = (row - row.max()) * scale + np.float32(4)
    result: Row = np.maximum(t, np.float32(-60))
    return result


def weight(row: Row, temperature: float) -> Row:
    """Return the mass of each token before it is rounded to an integer: nearly ``2**S * exp((x - max) / temperature)``."""
    t = exponent(row, temperature)
    n = np.rint(t)
    f = t - n
    p = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + np.float32(1)
    result: Row = np.ldexp(p, n.astype(np.int32) - 4 + S)
    return result


def mass(row: Row, temperature: float) -> Masses:
    """Return the mass of each token: its probability as an integer, 2**S for the most probable one."""
    return np.rint(weight(row, temperature).astype(np.float64)).astype(np.uint64)


def surprise(row: Row, temperature: float) -> Ids:
    """Return how much more each token surprises than the most probable one, in units of 2**-22 bits."""
    return ((4 - exponent(row, temperature).astype(np.float64)) * 2**22).astype(np.int64)


def entropy(masses: Masses, surprises: Ids) -> float:
    """Return the entropy of tokens in bits: log2 of their mass, and their mean surprise, from the same origin."""
    total = int(masses.sum())
    return log2(total) - S + float(dot(masses, surprises)) / float(total) / 2**22


def dot(masses: Masses, surprises: Ids) -> int:
    """Return the sum of the products, which does not fit in 64 bits."""
    return int(np.dot(masses.astype(object), surprises.astype(object)))


def sigma(logits: Row) -> float:
    """Return the standard deviation of logits that are sorted in descending order.

    Each is rounded to a grid of 1/1024, measured from the first, and counts as at most 1024 below it. The sums are integers.
    """
    with np.errstate(over="ignore"):
        distances = np.rint(np.minimum(logits[0] - logits, np.float32(1024)) * np.float32(1024)).astype(np.int64)
    count, sum_, squares = len(distances), int(distances.sum()), int((distances * distances).sum())
    return math.sqrt(float(squares * count - sum_ * sum_)) / float(count) / 1024.0


def order(row: npt.NDArray[Any]) -> Ids:
    """Return the ids in the total order: logit descending, then id ascending."""
    return np.argsort(-row, kind="stable")
