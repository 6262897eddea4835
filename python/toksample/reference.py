"""The definition of every function, in numpy.

What the compiled kernels return is equal to what is returned here: not close, equal. Nothing here is fast; each function is
short and says what the method is. The one idea is the exact mass:

1. A token's probability is an integer, its **mass** (:func:`mass`). Every step of it is one float32 operation that IEEE 754
   rounds correctly, so every machine computes the same integer, and integer sums do not depend on the order.
2. Tokens have a **total order** (:func:`order`): logit descending, then id ascending. The mass never decreases with the
   logit, so every filter keeps a prefix of this order: a filter is a function from what is kept to how many stay.
3. The **draw** (:func:`draw`) takes one random 64-bit word, which is a function of seed, stream and position
   (:func:`philox4x64`).
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_given, like
from toksample._checks import (
    Filters,
    Rows,
    as_rows,
    filters,
    for_rows,
    raise_row_errors,
    row_error,
    write_out,
)
from toksample._parameters import count, errors_mode

Row = npt.NDArray[np.float32]
Masses = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]

S = 41
"""The most probable token has a mass of 2**S. A row of 2**22 tokens sums to at most 2**63."""

LOG2_E = np.float64(1.4426950408889634)

# 2**f is nearly 1 + C1*f + ... + C5*f**5 for f in [-0.5, 0.5]: within 1.9e-7 of itself as computed in float32.
C1, C2, C3, C4, C5 = np.array(
    [0.693147, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149], np.float32
)


# ---- mass and order --------------------------------------------------------------------------------------------------


def weight(row: Row, temperature: float) -> npt.NDArray[np.float32]:
    """Return the mass of each token before it is rounded to an integer: nearly ``2**S * exp((x - max) / temperature)``."""
    with np.errstate(over="ignore"):
        scale = np.clip(np.float32(LOG2_E / temperature), np.finfo(np.float32).tiny, np.finfo(np.float32).max)
        t = (row - row.max()) * scale + np.float32(4)  # on a grid of 2**-22, on which the polynomial never decreases
    t = np.maximum(t, np.float32(-60))
    n = np.rint(t)
    f = t - n
    p = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + np.float32(1)
    result: npt.NDArray[np.float32] = np.ldexp(p, n.astype(np.int32) - 4 + S)
    return result


def mass(row: Row, temperature: float) -> Masses:
    """Return the mass of each token: its probability as an integer, 2**S for the most probable one."""
    return np.rint(weight(row, temperature).astype(np.float64)).astype(np.uint64)


def order(row: npt.NDArray[Any]) -> Ids:
    """Return the ids in the total order: logit descending, then id ascending."""
    return np.argsort(-row, kind="stable")


# ---- filters: how many of the first tokens of the order stay -----------------------------------------------------------


def keep_top_k(masses: Masses, k: int) -> int:
    """Keep the k first; 0 is off."""
    return min(k, len(masses)) if k > 0 else len(masses)


def keep_top_p(masses: Masses, p: float) -> int:
    """Keep the smallest prefix whose mass is at least the share p of the whole; 1 is off.

    A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The curious case of neural text degeneration", ICLR 2020.
    """
    if p == 1:
        return len(masses)
    total = int(masses.sum())
    need = min(total, max(1, math.ceil(float(p) * float(total))))
    return int(np.searchsorted(np.cumsum(masses), np.uint64(need))) + 1


def keep_min_p(masses: Masses, p: float) -> int:
    """Keep the tokens at least p times as probable as the most probable one; 0 is off.

    N. N. Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs", ICLR 2025.
    """
    return int(np.count_nonzero(masses >= np.uint64(math.ceil(p * 2**S))))


def survivors(row: Row, params: Filters) -> tuple[Ids, Masses]:
    """Return the ids that the filters keep, in the total order, and their masses. Banned tokens never survive."""
    if params.temperature == 0:
        return order(row)[:1], np.array([2**S], np.uint64)
    ids = order(row)[: np.count_nonzero(row > -np.inf)]
    masses = mass(row, params.temperature)[ids]
    masses = masses[: keep_top_k(masses, params.top_k)]
    masses = masses[: keep_top_p(masses, params.top_p)]
    masses = masses[: keep_min_p(masses, params.min_p)]
    return ids[: len(masses)], masses


# ---- the draw --------------------------------------------------------------------------------------------------------


def philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the four words of Philox4x64-10 at a counter.

    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. It is the
    generator of :class:`numpy.random.Philox`, which gives these words for a counter that is smaller by one.
    """
    low = 2**64 - 1
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (product1 >> 64) ^ c1 ^ k0, product1 & low, (product0 >> 64) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & low, (k1 + 0xBB67AE8584CAA73B) & low
    return c0, c1, c2, c3


def draw_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word that draws the token at ``position`` of text number ``stream``."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[0]


def draw(ids: Ids, masses: Masses, word: int) -> int:
    """Return the first id, in id order, whose running mass exceeds the point of the mass line that the word hits."""
    by_id = np.argsort(ids)
    running = np.cumsum(masses[by_id])
    target = (word * int(running[-1])) >> 64
    return int(ids[by_id][np.searchsorted(running, np.uint64(target), side="right")])


# ---- the functions of the package --------------------------------------------------------------------------------------


def argmax(logits: object, *, num_threads: int | None = None) -> Any:
    """See :func:`toksample.argmax`."""
    rows = as_rows(logits)
    raise_row_errors(rows)
    tokens = np.argmax(rows.rows, axis=1).astype(np.int64)
    return tokens if rows.is_batch else int(tokens[0])


def _like_logits(result: Row, rows: Rows, logits: object, out: npt.NDArray[np.float32] | None) -> Any:
    """Give the rows of a result as the caller wants them: in `out`, or in the kind of array that the logits are."""
    result = result if rows.is_batch else result[0]
    return like(result, logits) if out is None else write_out(result, out)


def softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.softmax`."""
    rows = as_rows(logits)
    params = filters(temperature, 0, 1.0, 0.0, rows)
    raise_row_errors(rows)
    result = np.zeros_like(rows.rows)
    for b, (row, param) in enumerate(zip(rows.rows, params, strict=True)):
        if param.temperature == 0:
            result[b, np.argmax(row)] = 1
        else:
            w = weight(row, param.temperature)
            total = int(np.rint(w.astype(np.float64)).astype(np.uint64).sum())
            result[b] = np.where(w > w.dtype.type(2.0 ** (S - 64)), w, 0) * np.float32(1.0 / float(total))
    return _like_logits(result, rows, logits, out)


def ln(w: int) -> float:
    """Return the natural logarithm of an integer by a fixed series, the same on every machine.

    With w = m * 2**e and m in [1, 2): ln w = e ln 2 + 2 artanh((m - 1) / (m + 1)).
    """
    m, e = math.frexp(float(w))
    m, e = 2 * m, e - 1
    r = (m - 1) / (m + 1)
    series = 0.0
    for term in reversed(range(17)):
        series = series * (r * r) + 1.0 / (2 * term + 1)
    return e * math.log(2) + 2.0 * r * series


def log_softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.log_softmax`."""
    rows = as_rows(logits)
    params = filters(temperature, 0, 1.0, 0.0, rows)
    raise_row_errors(rows)
    result = np.full_like(rows.rows, -np.inf)
    for b, (row, param) in enumerate(zip(rows.rows, params, strict=True)):
        if param.temperature == 0:
            result[b, np.argmax(row)] = 0
        else:
            log_total = ln(int(mass(row, param.temperature).sum())) - S * math.log(2)
            inverse = min(1.0 / param.temperature, np.finfo(np.float64).max)
            x = row.astype(np.float64)
            with np.errstate(over="ignore"):
                result[b] = ((x - x.max()) * inverse - log_total).astype(np.float32)
    return _like_logits(result, rows, logits, out)


def top_k(logits: object, k: int, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """See :func:`toksample.top_k`."""
    rows = as_rows(logits)
    k = count("k", k, rows.rows.shape[1])
    raise_row_errors(rows)
    given = np.atleast_2d(as_given(logits)[0])
    sortable = given if given.dtype == np.float64 else rows.rows  # float64 is sorted as it is, before it is rounded
    ids = np.array([order(row)[:k] for row in sortable], np.int64).reshape(-1, k)
    values = np.take_along_axis(given, ids, axis=1)
    if not rows.is_batch:
        values, ids = values[0], ids[0]
    return like(values, logits), like(ids, logits)


def sample(
    logits: object,
    *,
    temperature: float | npt.ArrayLike | None = 1.0,
    top_k: int | npt.ArrayLike | None = 0,
    top_p: float | npt.ArrayLike | None = 1.0,
    min_p: float | npt.ArrayLike | None = 0.0,
    seed: int | npt.ArrayLike | None = None,
    position: int | npt.ArrayLike = 0,
    stream: int | npt.ArrayLike | None = None,
    errors: str = "raise",
    num_threads: int | None = None,
    out: npt.NDArray[np.int64] | None = None,
) -> Any:
    """See :func:`toksample.sample`."""
    rows = as_rows(logits)
    errors_mode(errors)
    params = filters(temperature, top_k, top_p, min_p, rows)
    seeds = for_rows("seed", int.from_bytes(os.urandom(8)) if seed is None else seed, rows)
    streams = list(range(len(rows.rows))) if stream is None else for_rows("stream", stream, rows)
    positions = for_rows("position", position, rows)
    if errors == "raise":
        raise_row_errors(rows)
    tokens = np.full(len(rows.rows), -1, np.int64)
    for b, row in enumerate(rows.rows):
        if row_error(row) is None:
            tokens[b] = draw(*survivors(row, params[b]), draw_word(seeds[b], streams[b], positions[b]))
    if out is not None:
        return write_out(tokens if rows.is_batch else tokens[0], out)
    return tokens if rows.is_batch else int(tokens[0])


def candidates(
    logits: object,
    *,
    temperature: float | None = 1.0,
    top_k: int | None = 0,
    top_p: float | None = 1.0,
    min_p: float | None = 0.0,
    seed: object = None,
    position: object = 0,
    stream: object = None,
) -> tuple[Ids, npt.NDArray[np.float64]]:
    """See :func:`toksample.candidates`."""
    rows = as_rows(logits)
    if rows.is_batch:
        raise ValueError(f"logits must be one row of shape (V,), got shape {rows.rows.shape}")
    (params,) = filters(temperature, top_k, top_p, min_p, rows)
    raise_row_errors(rows)
    ids, masses = survivors(rows.rows[0], params)
    return ids, masses.astype(np.float64) / float(int(masses.sum()))


def mask_logits(
    logits: object,
    *,
    temperature: float | npt.ArrayLike | None = 1.0,
    top_k: int | npt.ArrayLike | None = 0,
    top_p: float | npt.ArrayLike | None = 1.0,
    min_p: float | npt.ArrayLike | None = 0.0,
    seed: object = None,
    position: object = 0,
    stream: object = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.mask_logits`."""
    rows = as_rows(logits)
    params = filters(temperature, top_k, top_p, min_p, rows)
    raise_row_errors(rows)
    given = np.atleast_2d(as_given(logits)[0])
    masked = np.full_like(given, 0xFF80 if given.dtype == np.uint16 else -np.inf)  # 0xFF80 is -inf in bfloat16
    for b, row in enumerate(rows.rows):
        ids, _ = survivors(row, params[b])
        masked[b, ids] = given[b, ids]
    return like(masked if rows.is_batch else masked[0], logits)
