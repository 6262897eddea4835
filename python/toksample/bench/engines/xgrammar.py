"""The bitmasks of xgrammar."""

from __future__ import annotations

import importlib
from typing import Any

from toksample.bench.engines.base import Timed
from toksample.bench.engines.torch import TorchBased
from toksample.bench.rows import Rows, make_bitmask


class Xgrammar(TorchBased):
    """The function of xgrammar that applies a bitmask."""

    name = "xgrammar"
    packages = ("xgrammar", "torch")
    note = "apply_token_bitmask_inplace"

    def bitmask(self, rows: Rows) -> Timed:
        torch, apply = self._torch, importlib.import_module("xgrammar").apply_token_bitmask_inplace
        mask, logits = torch.from_numpy(make_bitmask(rows)), torch.from_numpy(rows.copy())

        def ban() -> Any:
            apply(logits, mask)
            return logits

        return ban
