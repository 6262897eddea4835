"""Loops compiled by numba."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from toksample.bench.engines.base import Engine, Timed, each_row
from toksample.bench.rows import Rows


class Numba(Engine):
    """Loops as people write them with numba."""

    name = "numba"
    packages = ("numba",)
    note = "njit(fastmath=True) loops; argpartition and argsort where something is sorted; a batch is a loop"

    def argmax(self, rows: Rows) -> Timed:
        return each_row(_numba_code()["argmax"], rows)

    def softmax(self, rows: Rows) -> Timed:
        softmax = _numba_code()["softmax"]
        out = np.empty(rows.shape, np.float32)
        pairs = list(zip(np.atleast_2d(rows), np.atleast_2d(out), strict=True))

        def each() -> Rows:
            for row, row_out in pairs:
                softmax(row, row_out)
            return out

        return each

    def top_k(self, rows: Rows, k: int) -> Timed:
        top_k = _numba_code()["top_k"]
        return each_row(lambda row: top_k(row, k), rows)

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        code, random = _numba_code(), np.random.default_rng(1).random
        if top_k:
            draw = code["draw_top_k"]
            return each_row(lambda row: draw(row, temperature, top_k, top_p, random()), rows)
        if top_p < 1:
            draw = code["draw_top_p"]
            return each_row(lambda row: draw(row, temperature, top_p, random()), rows)
        draw = code["draw"]
        return each_row(lambda row: draw(row, temperature, min_p, random()), rows)


@functools.cache
def _numba_code() -> dict[str, Any]:
    njit = importlib.import_module("numba").njit(fastmath=True)

    @njit  # type: ignore[untyped-decorator]
    def argmax(row: Any) -> Any:
        best = 0
        for i in range(len(row)):
            if row[i] > row[best]:
                best = i
        return best

    @njit  # type: ignore[untyped-decorator]
    def maximum(row: Any) -> Any:
        most = row[0]
        for x in row:
            most = max(most, x)
        return most

    @njit  # type: ignore[untyped-decorator]
    def softmax(row: Any, out: Any) -> None:
        most = maximum(row)
        total = np.float32(0)
        for i in range(len(row)):
            out[i] = np.exp(row[i] - most)
            total += out[i]
        out *= np.float32(1) / total

    @njit  # type: ignore[untyped-decorator]
    def top_k(row: Any, k: Any) -> Any:
        ids = np.argpartition(-row, k - 1)[:k] if k < len(row) else np.arange(len(row))
        ids = ids[np.argsort(-row[ids])]
        return row[ids], ids

    @njit  # type: ignore[untyped-decorator]
    def draw_sorted(logits: Any, ids: Any, temperature: Any, top_p: Any, u: Any) -> Any:
        running = np.cumsum(np.exp((logits - logits[0]) / np.float32(temperature)).astype(np.float64))
        kept = min(np.searchsorted(running, top_p * running[-1]), len(ids) - 1)
        return ids[min(np.searchsorted(running, u * running[kept], side="right"), kept)]

    @njit  # type: ignore[untyped-decorator]
    def draw_top_k(row: Any, temperature: Any, k: Any, top_p: Any, u: Any) -> Any:
        logits, ids = top_k(row, k)
        return draw_sorted(logits, ids, temperature, top_p, u)

    @njit  # type: ignore[untyped-decorator]
    def draw_top_p(row: Any, temperature: Any, top_p: Any, u: Any) -> Any:
        ids = np.argsort(-row)
        return draw_sorted(row[ids], ids, temperature, top_p, u)

    @njit  # type: ignore[untyped-decorator]
    def draw(row: Any, temperature: Any, min_p: Any, u: Any) -> Any:
        most, scale = maximum(row), np.float32(1 / temperature)
        probs = np.empty(len(row), np.float32)
        total = 0.0
        for i in range(len(row)):
            p = np.exp((row[i] - most) * scale)
            probs[i] = p if p >= min_p else 0
            total += probs[i]
        target, running, last = u * total, 0.0, 0
        for i in range(len(row)):
            if probs[i] > 0:
                last = i
                running += probs[i]
                if running > target:
                    return i
        return last

    return {
        "argmax": argmax,
        "softmax": softmax,
        "top_k": top_k,
        "draw_top_k": draw_top_k,
        "draw_top_p": draw_top_p,
        "draw": draw,
    }
