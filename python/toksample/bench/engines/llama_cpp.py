"""The samplers of llama.cpp."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample.bench.engines.base import Engine, Timed, each_row
from toksample.bench.rows import Rows


class LlamaCpp(Engine):
    """A sampler chain of llama.cpp, made with the low-level functions of llama-cpp-python."""

    name = "llama.cpp"
    packages = ("llama-cpp-python",)
    note = (
        "llama_sampler_chain, with the llama_token_data_array filled for each token as llama.cpp does (here by numpy);"
        " temperature before the filters and penalties before all filters, to mean the same as in the other engines: its own"
        " default order has the temperature last, and it advises to penalize after a top_k; mirostat with eta 0, so that each"
        " call is that of a first token; a batch is a loop"
    )
    _TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._llama = importlib.import_module("llama_cpp")

    def argmax(self, rows: Rows) -> Timed:
        return self._chain(rows, [self._llama.llama_sampler_init_greedy()])

    def top_k(self, rows: Rows, k: int) -> Timed:
        def kept(array: Any, data: npt.NDArray[np.void]) -> tuple[Rows, npt.NDArray[np.int32]]:
            return data["logit"][: array.size].copy(), data["id"][: array.size].copy()

        return self._chain(rows, [self._llama.llama_sampler_init_top_k(k)], result=kept)

    def sample(
        self,
        rows: Rows,
        temperature: float,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        top_n_sigma: float = 0.0,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        dynatemp_range: float = 0.0,
        mirostat: int = 0,
        adaptive_target: float = -1.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        dry_multiplier: float = 0.0,
        output_ids: npt.NDArray[np.int64] | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> Timed:
        llama, vocab = self._llama, rows.shape[-1]
        samplers = []
        if logit_bias:
            biases = (llama.llama_logit_bias * len(logit_bias))(*logit_bias.items())  # llama.cpp copies them
            samplers.append(llama.llama_sampler_init_logit_bias(vocab, len(biases), biases))
        history = [] if output_ids is None else np.atleast_2d(output_ids)[0].tolist()  # it is the same for each row
        penalties = repetition_penalty, frequency_penalty, presence_penalty
        if penalties != (1, 0, 0):
            samplers.append(llama.llama_sampler_init_penalties(vocab, len(history), *penalties))
        if dry_multiplier > 0:
            samplers.append(llama.llama_sampler_init_dry(None, dry_multiplier, 1.75, 2, len(history), None, 0))
        if dynatemp_range > 0:
            samplers.append(llama.llama_sampler_init_temp_ext(temperature, dynatemp_range, 1))
        else:
            samplers.append(llama.llama_sampler_init_temp(temperature))
        if top_k:
            samplers.append(llama.llama_sampler_init_top_k(top_k))
        if top_p < 1:
            samplers.append(llama.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0:
            samplers.append(llama.llama_sampler_init_min_p(min_p, 1))
        if typical_p < 1:
            samplers.append(llama.llama_sampler_init_typical(typical_p, 1))
        if top_n_sigma > 0:
            samplers.append(llama.llama_sampler_init_top_n_sigma(top_n_sigma))
        if xtc_probability > 0:
            samplers.append(llama.llama_sampler_init_xtc(xtc_probability, xtc_threshold, 1, 1))
        if mirostat == 1:
            draw = llama.llama_sampler_init_mirostat(vocab, 1, 5, 0, 100)
        elif mirostat == 2:
            draw = llama.llama_sampler_init_mirostat_v2(1, 5, 0)
        elif adaptive_target >= 0:
            draw = llama.llama_sampler_init_adaptive_p(adaptive_target, 0.9, 1)
        else:
            draw = llama.llama_sampler_init_dist(1)
        return self._chain(rows, [*samplers, draw], history)

    def _chain(
        self,
        rows: Rows,
        samplers: Iterable[Any],
        history: Iterable[int] = (),
        result: Callable[[Any, npt.NDArray[np.void]], Any] = lambda array, data: int(array.data[array.selected].id),
    ) -> Timed:
        llama = self._llama
        chain = LlamaChain(llama, samplers)
        for token in history:
            llama.llama_sampler_accept(chain.pointer, token)
        vocab = rows.shape[-1]
        data = np.zeros(vocab, self._TOKEN_DATA)
        data_ids, data_logits = data["id"], data["logit"]
        ids = np.arange(vocab, dtype=np.int32)
        pointer = ctypes.cast(data.ctypes.data, llama.llama_token_data_p)

        def one(row: Rows) -> Any:
            data_ids[:] = ids
            data_logits[:] = row  # the samplers set p before they read it
            array = llama.llama_token_data_array(pointer, vocab, -1, False)
            llama.llama_sampler_apply(chain.pointer, ctypes.byref(array))
            return result(array, data)

        return each_row(one, rows)


class LlamaChain:
    """Owns a sampler chain, and frees it in the end."""

    def __init__(self, llama: Any, samplers: Iterable[Any]) -> None:
        self._free = llama.llama_sampler_free
        self.pointer = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in samplers:
            llama.llama_sampler_chain_add(self.pointer, sampler)

    def __del__(self) -> None:
        self._free(self.pointer)
