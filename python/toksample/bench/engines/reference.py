"""The numpy code that defines the answers of toksample."""

from __future__ import annotations

from typing import Any

import numpy as np

from toksample import reference
from toksample.bench.engines.base import Engine, Timed
from toksample.bench.rows import Rows


class Reference(Engine):
    """The numpy code that defines the answers of toksample."""

    name = "toksample.reference"
    note = "numpy code that defines every answer; not meant to be fast"

    def argmax(self, rows: Rows) -> Timed:
        return lambda: reference.argmax(rows)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)
        return lambda: reference.softmax(rows, out=out)

    def top_k(self, rows: Rows, k: int) -> Timed:
        return lambda: reference.top_k(rows, k)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        position = iter(range(2**62))
        return lambda: reference.sample(rows, **params, seed=1, position=next(position))
