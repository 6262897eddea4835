"""The bitmasks of llguidance."""

from __future__ import annotations

import importlib

import numpy as np

from toksample.bench.engines.base import Engine, Timed
from toksample.bench.rows import Rows, make_bitmask


class Llguidance(Engine):
    """The function of llguidance that applies a bitmask."""

    name = "llguidance"
    packages = ("llguidance",)
    note = "apply_token_bitmask_inplace of llguidance.numpy"

    def bitmask(self, rows: Rows) -> Timed:
        apply = importlib.import_module("llguidance.numpy").apply_token_bitmask_inplace
        mask, logits = np.atleast_2d(make_bitmask(rows)), np.atleast_2d(rows.copy())

        def ban() -> Rows:
            apply(logits, mask)
            return logits.reshape(rows.shape)

        return ban
