"""The sampling of transformers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample.bench.engines.base import Timed
from toksample.bench.engines.torch import TorchBased
from toksample.bench.rows import Rows


class Transformers(TorchBased):
    """The logits processors that `generate` of transformers applies, and its draw."""

    name = "transformers"
    packages = ("transformers", "torch")
    note = "the LogitsProcessor of each method, softmax, multinomial"

    def sample(
        self,
        rows: Rows,
        temperature: float,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        epsilon_cutoff: float = 0.0,
        eta_cutoff: float = 0.0,
        top_h: float = 0.0,
        repetition_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        output_ids: npt.NDArray[np.int64] | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(np.atleast_2d(rows))
        transformers = importlib.import_module("transformers")
        warpers = transformers.LogitsProcessorList()
        if logit_bias:
            sequences = {(token,): bias for token, bias in logit_bias.items()}
            warpers.append(transformers.SequenceBiasLogitsProcessor(sequences))
        if repetition_penalty != 1:
            warpers.append(transformers.RepetitionPenaltyLogitsProcessor(repetition_penalty))
        if no_repeat_ngram_size > 0:
            warpers.append(transformers.NoRepeatNGramLogitsProcessor(no_repeat_ngram_size))
        warpers.append(transformers.TemperatureLogitsWarper(temperature))
        if top_k:
            warpers.append(transformers.TopKLogitsWarper(top_k))
        if top_p < 1:
            warpers.append(transformers.TopPLogitsWarper(top_p))
        if min_p > 0:
            warpers.append(transformers.MinPLogitsWarper(min_p))
        if typical_p < 1:
            warpers.append(transformers.TypicalLogitsWarper(typical_p))
        if epsilon_cutoff > 0:
            warpers.append(transformers.EpsilonLogitsWarper(epsilon_cutoff))
        if eta_cutoff > 0:
            warpers.append(transformers.EtaLogitsWarper(eta_cutoff))
        if top_h > 0:
            warpers.append(transformers.TopHLogitsWarper(top_h))
        ids = torch.empty((len(tensor), 0), dtype=torch.int64)
        if output_ids is not None:
            ids = torch.from_numpy(np.atleast_2d(output_ids))

        def sample() -> Any:
            probs = torch.nn.functional.softmax(warpers(ids, tensor), dim=-1)
            return torch.multinomial(probs, num_samples=1).squeeze(1)

        return sample
