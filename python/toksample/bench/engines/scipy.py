"""The softmax of scipy."""

from __future__ import annotations

import importlib

from toksample.bench.engines.base import Engine, Timed
from toksample.bench.rows import Rows


class Scipy(Engine):
    """The softmax of scipy."""

    name = "scipy"
    packages = ("scipy",)

    def softmax(self, rows: Rows) -> Timed:
        softmax = importlib.import_module("scipy.special").softmax
        return lambda: softmax(rows, axis=-1)
