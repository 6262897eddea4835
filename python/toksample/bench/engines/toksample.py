"""toksample itself."""

from __future__ import annotations

from typing import Any

import numpy as np

import toksample
from toksample.bench.engines.base import Engine, Timed
from toksample.bench.rows import Rows


class Toksample(Engine):
    """toksample itself."""

    name = "toksample"
    packages = ("toksample",)

    def argmax(self, rows: Rows) -> Timed:
        return lambda: toksample.argmax(rows, num_threads=self.threads)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)
        return lambda: toksample.softmax(rows, out=out, num_threads=self.threads)

    def top_k(self, rows: Rows, k: int) -> Timed:
        return lambda: toksample.top_k(rows, k, num_threads=self.threads)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        position = iter(range(2**62))
        if rows.ndim > 1:
            params["num_threads"] = self.threads
        return lambda: toksample.sample(rows, seed=1, position=next(position), **params)
