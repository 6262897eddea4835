"""Sampling in torch, on the CPU."""

from __future__ import annotations

import importlib
from typing import Any

from toksample.bench.calls import Call
from toksample.bench.engines.base import Engine, Timed
from toksample.bench.machine import cores
from toksample.bench.rows import Rows, make_bitmask, unpack_bitmask


class TorchBased(Engine):
    """What the engines share that use torch: its number of threads belongs to the whole process."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._torch = importlib.import_module("torch")

    def prepare(self, call: Call, rows: Rows) -> Timed:
        get, threads, change = self._torch.get_num_threads, self.threads, self._torch.set_num_threads
        change(threads)
        timed = super().prepare(call, rows)

        def with_threads() -> Any:
            if get() != threads:  # the call before was made by an engine with another number
                change(threads)
            return timed()

        return with_threads

    def answer(self, call: Call, result: Any) -> Any:
        return tuple(part.numpy() for part in result) if call.operation == "top_k" else result.numpy()


class Torch(TorchBased):
    """Sampling as people write it with torch."""

    name = "torch"
    packages = ("torch",)
    note = "topk or sort, softmax, cumsum, multinomial; for a bitmask masked_fill with a mask of bools, made beforehand"

    def argmax(self, rows: Rows) -> Timed:
        tensor = self._torch.from_numpy(rows)
        return lambda: tensor.argmax(-1)

    def softmax(self, rows: Rows) -> Timed:
        tensor, out, softmax = self._torch.from_numpy(rows), self._torch.empty(rows.shape), self._torch.softmax
        return lambda: softmax(tensor, -1, out=out)

    def top_k(self, rows: Rows, k: int) -> Timed:
        tensor = self._torch.from_numpy(rows)
        return lambda: tensor.topk(min(k, tensor.shape[-1]))

    def sample(self, rows: Rows, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(rows)

        def sample() -> Any:
            logits, ids = tensor, None
            if top_k:
                logits, ids = logits.topk(min(top_k, logits.shape[-1]))
            elif top_p < 1:
                logits, ids = logits.sort(descending=True)
            probs = torch.softmax(logits / temperature, -1)
            if top_p < 1:
                before = probs.cumsum(-1) - probs
                probs = probs.masked_fill(before >= top_p, 0.0)
            if min_p > 0:
                probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0.0)
            place = torch.multinomial(probs, 1)
            return (place if ids is None else ids.gather(-1, place))[..., 0]

        return sample

    def bitmask(self, rows: Rows) -> Timed:
        torch, tensor = self._torch, self._torch.from_numpy(rows)
        banned = torch.from_numpy(~unpack_bitmask(make_bitmask(rows), rows.shape[-1]))
        return lambda: tensor.masked_fill(banned, -torch.inf)


class TorchAllThreads(Torch):
    """The same code, with a thread for each core, whatever number of threads the others have."""

    name = "torch-all-threads"
    note = "as torch, with a thread for each core"

    def __init__(self, threads: int) -> None:
        super().__init__(cores())
