"""What one writes with numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toksample.bench.engines.base import Engine, Timed, each_row
from toksample.bench.rows import Rows, make_bitmask


class Numpy(Engine):
    """What one writes with numpy alone."""

    name = "numpy"
    packages = ("numpy",)
    note = "argpartition or argsort, exp, cumsum, Generator.choice; a batch is a loop"

    def argmax(self, rows: Rows) -> Timed:
        return lambda: np.argmax(rows, axis=-1)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)

        def softmax() -> Rows:
            np.subtract(rows, rows.max(axis=-1, keepdims=True), out=out)
            np.exp(out, out=out)
            np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
            return out

        return softmax

    def top_k(self, rows: Rows, k: int) -> Timed:
        return each_row(lambda row: numpy_top_k(row, k), rows)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        rng = np.random.default_rng(1)
        return each_row(lambda row: numpy_sample(row, rng, **params), rows)

    def bitmask(self, rows: Rows) -> Timed:
        mask = make_bitmask(rows)

        def ban() -> Rows:
            bits = np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., : rows.shape[-1]]
            return np.where(bits, rows, np.float32(-np.inf))

        return ban


def numpy_top_k(row: Rows, k: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Return the k largest logits of a row and their ids, in descending order."""
    if k < len(row):
        ids = np.argpartition(row, -k)[-k:]
        ids = ids[np.argsort(-row[ids])]
    else:
        ids = np.argsort(-row)
    return row[ids], ids


def numpy_sample(
    row: Rows, rng: np.random.Generator, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> int:
    """Draw a token from a row."""
    if top_k:
        logits, ids = numpy_top_k(row, top_k)
    elif top_p < 1:
        ids = np.argsort(-row)
        logits = row[ids]
    else:
        logits, ids = row, np.arange(len(row))
    probs = np.exp((logits - logits.max()) / temperature).astype(np.float64)
    if top_p < 1:
        running = np.cumsum(probs)
        kept = int(np.searchsorted(running, top_p * running[-1])) + 1
        probs, ids = probs[:kept], ids[:kept]
    if min_p > 0:
        probs = np.where(probs >= min_p * probs.max(), probs, 0)
    return int(rng.choice(ids, p=probs / probs.sum()))
