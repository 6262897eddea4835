"""Logarithms and powers by fixed series: the same on every machine, where those of two system libraries may differ.

Each operation is one float64 operation that IEEE 754 rounds correctly. ``src/kernels/series.rs`` has the same functions.
"""

from __future__ import annotations

import math

LN_2 = math.log(2)
LOG2_E = 1.4426950408889634


def ln(w: int) -> float:
    """Return the natural logarithm of an integer of at least 1.

    With w = m * 2**e and m in [1, 2): ln w = e ln 2 + 2 artanh((m - 1) / (m + 1)).
    """
    e, ln_m = _split(w)
    return e * LN_2 + ln_m


def log2(w: int) -> float:
    """Return the binary logarithm of an integer of at least 1."""
    e, ln_m = _split(w)
    return e + ln_m * LOG2_E


def _split(w: int) -> tuple[int, float]:
    """Return e and ln m."""
    m, e = math.frexp(float(w))
    m, e = 2 * m, e - 1
    r = (m - 1) / (m + 1)
    series = 0.0
    for term in reversed(range(17)):
        series = series * (r * r) + 1.0 / (2 * term + 1)
    return e, 2.0 * r * series


def exp2(x: float) -> float:
    """Return 2**x for x in [-1000, 1000].

    With x = n + f, n the nearest integer: 2**x = 2**n exp(f ln 2), and exp y = 1 + y / 1 * (1 + y / 2 * (1 + ...)).
    """
    n = round(x)
    y = (x - n) * LN_2
    series = 1.0
    for term in range(14, 0, -1):
        series = 1.0 + y / term * series
    return math.ldexp(series, n)
