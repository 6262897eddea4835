"""The sampling of transformers."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from toksample.bench.engines.base import Timed
from toksample.bench.engines.torch import TorchBased
from toksample.bench.rows import Rows


class Transformers(TorchBased):
    """The warpers that `generate` of transformers applies, and its draw."""

    name = "transformers"
    packages = ("transformers", "torch")
    note = "TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper, softmax, multinomial"

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(np.atleast_2d(rows))
        transformers = importlib.import_module("transformers")
        warpers = transformers.LogitsProcessorList()
        warpers.append(transformers.TemperatureLogitsWarper(temperature))
        if top_k:
            warpers.append(transformers.TopKLogitsWarper(top_k))
        if top_p < 1:
            warpers.append(transformers.TopPLogitsWarper(top_p))
        if min_p > 0:
            warpers.append(transformers.MinPLogitsWarper(min_p))
        no_ids = torch.empty((len(tensor), 0), dtype=torch.int64)

        def sample() -> Any:
            probs = torch.nn.functional.softmax(warpers(no_ids, tensor), dim=-1)
            return torch.multinomial(probs, num_samples=1).squeeze(1)

        return sample
